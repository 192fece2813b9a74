"""What an exported file says of itself: read without PyTorch, and without reading its weights."""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Container, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from brainseg_cli.errors import InputError

INFO, PRECISION = "brainseg", "precision"
"""Keys: the bundle's brainseg.json, and what the network computes in, `fp32` or `int8`."""
ONNX, OPENVINO = ".onnx", ".xml"
SEALS = {ONNX: (b"\x72\x4a\x0a\x06sha256\x12\x40", b""), OPENVINO: (b"\n<!-- sha256 ", b" -->\n")}
"""What stands before and after the 64 hex digits at the end of a file: field 14, key and value; a comment."""


def is_export(path: Path) -> bool:
    """Whether `path` is a file of a kind that predict can run by itself."""
    return path.suffix.lower() in (ONNX, OPENVINO) and path.is_file()


def list_parts(path: Path) -> list[Path]:
    """The files that an exported file consists of: OpenVINO keeps the weights beside the .xml."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == OPENVINO else [path]


def read_metadata(path: Path, data: bytes) -> dict[str, str]:
    """The keys of an .onnx or .xml file that `brainseg export` wrote, of its bytes. InputError for any other file."""
    found = read_properties(path, data)
    if INFO not in found:
        raise InputError("was not made by brainseg export", where=path, hint="a network alone does not say its input")
    return found


def read_properties(path: Path, data: bytes) -> dict[str, str]:
    """As `read_metadata`, of any .onnx or .xml file."""
    try:
        found = (_read_xml if path.suffix.lower() == OPENVINO else _read_onnx)(BytesIO(data))
    except (ValueError, ElementTree.ParseError):  # a UnicodeDecodeError is a ValueError
        kind = "OpenVINO" if path.suffix.lower() == OPENVINO else "ONNX"
        raise InputError(f"is damaged, or no {kind} file", where=path) from None
    return found


def seal(path: Path) -> None:
    """Add to an exported file the SHA-256 of all its parts, in a way that other readers pass over.

    To an .onnx one more of its metadata_props, for a protobuf message may go on; to an .xml a comment after its end.
    """
    parts = [part.read_bytes() for part in list_parts(path)]
    with path.open("ab") as file:
        file.write(_make_seal(path, parts))


def is_sealed(path: Path, parts: Sequence[bytes]) -> bool | None:
    """Whether the bytes of an exported file's parts are those that were sealed; None where they were not."""
    graph, rest = parts[0], parts[1:]
    length = len(_make_seal(path, [b""]))
    body, found = graph[:-length], graph[-length:]
    if not found.startswith(SEALS[path.suffix.lower()][0]):
        return None
    return found == _make_seal(path, [body, *rest])


def check_seal(path: Path, parts: Sequence[bytes]) -> None:
    """InputError for an exported file that is not as it was sealed. An older one may have no seal."""
    if is_sealed(path, parts) is False:
        raise InputError(
            "is not as it was written: its checksum does not fit", where=path, hint="export it again, or copy it again"
        )


def _make_seal(path: Path, parts: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    before, after = SEALS[path.suffix.lower()]
    return before + digest.hexdigest().encode() + after


def _read_xml(file: BinaryIO) -> dict[str, str]:
    """The rt_info of OpenVINO's intermediate representation."""
    root = ElementTree.parse(file, ElementTree.XMLParser(target=_NoEntities())).getroot()
    return {each.tag: each.get("value", "") for each in root.iterfind("rt_info/*")}


class _NoEntities(ElementTree.TreeBuilder):
    """Refuses a document type, in which entities would be defined: OpenVINO writes none."""

    def doctype(self, *_: Any) -> None:
        raise ValueError("a document type")


def _read_onnx(file: BinaryIO) -> dict[str, str]:
    """metadata_props of ModelProto (https://onnx.ai/onnx/repo-docs/IR.html): 14, of entries with key 1 and value 2."""
    entries = [dict(_read_fields(BytesIO(entry), (1, 2))) for _, entry in _read_fields(file, (14,))]
    return {each.get(1, b"").decode(): each.get(2, b"").decode() for each in entries}


def _read_fields(file: BinaryIO, wanted: Container[int]) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of a protobuf message's `wanted` fields (https://protobuf.dev/programming-guides/encoding).

    The others are stepped over. ValueError where it is no such message, or cut off.
    """
    size = file.seek(0, 2)
    file.seek(0)
    while file.tell() < size:
        number, kind = divmod(_read_varint(file), 8)
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError("no message")
        if kind == 0:
            _read_varint(file)
            continue
        length = {1: 8, 5: 4}.get(kind) or _read_varint(file)
        if file.tell() + length > size:
            raise ValueError("cut off")
        if number in wanted:
            yield number, file.read(length)
        else:
            file.seek(length, 1)


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no number")
