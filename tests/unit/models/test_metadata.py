"""What exported files say of themselves, as their own libraries write it, and what is no such file."""

from pathlib import Path

import onnx
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.models.exported import import_runtime, load_openvino
from brainseg_cli.models.metadata import is_export, list_parts, read_metadata

SAID = {"brainseg": '{"epoch": 7, "of": "naïve <&\\"\'> \\n"}', "precision": "int8", "empty": "", "long": "x" * 40_000}


def write_onnx(path: Path, **said: str) -> bytes:
    """A graph of one operator with 4 kB of weights."""
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1024], bytes(4096), raw=True)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1024])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1024])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [result], [weights])
    proto = onnx.helper.make_model(graph, producer_name="a producer", doc_string="said", model_version=2**40)
    onnx.helper.set_model_props(proto, said)
    path.write_bytes(proto.SerializeToString())
    return path.read_bytes()


def write_xml(path: Path, **said: str) -> None:
    openvino = import_runtime("openvino")
    source = path.with_suffix(".onnx")
    write_onnx(source)
    model = load_openvino().read_model(source)
    for key, value in said.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, path)


def read_said(path: Path) -> dict[str, str]:
    return read_metadata(path, path.read_bytes())


def test_onnx_files_give_back_what_their_library_wrote(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", **SAID)
    assert read_said(tmp_path / "m.onnx") == SAID


def test_openvino_files_give_back_what_their_library_wrote(tmp_path: Path) -> None:
    write_xml(tmp_path / "m.xml", **SAID)
    found = read_said(tmp_path / "m.xml")
    assert {key: found[key] for key in SAID} == SAID
    assert list_parts(tmp_path / "m.xml") == [tmp_path / "m.xml", tmp_path / "m.bin"]


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_a_network_from_elsewhere_is_named(name: str, tmp_path: Path) -> None:
    (write_onnx if name == "m.onnx" else write_xml)(tmp_path / name, author="somebody")
    with pytest.raises(InputError, match="was not made by brainseg export") as caught:
        read_said(tmp_path / name)
    assert caught.value.where == tmp_path / name and "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_anywhere_is_told(tmp_path: Path) -> None:
    """Before its metadata, the last field, is complete."""
    whole = write_onnx(tmp_path / "whole.onnx", brainseg="{}")
    path = tmp_path / "m.onnx"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_said(path)


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaa">]><net><rt_info><brainseg value="&a;"/></rt_info></net>'


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("m.onnx", b"a text, and no network at all", "no ONNX file"),
        ("m.onnx", bytes(500), "no ONNX file"),
        ("m.onnx", b"\xff" * 500, "no ONNX file"),
        ("m.onnx", b"", "was not made by brainseg"),
        ("m.xml", b"", "no OpenVINO file"),
        ("m.xml", b"<net><rt_info>", "no OpenVINO file"),
        ("m.xml", b"\xff\xfe\xfd", "no OpenVINO file"),
        ("m.xml", b"<html/>", "was not made by brainseg"),
        ("m.xml", BOMB.encode(), "no OpenVINO file"),
        ("M.XML", b"<net/>", "was not made by brainseg"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(name: str, data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=told) as caught:
        read_said(tmp_path / name)
    assert caught.value.where == tmp_path / name and "\n" not in str(caught.value)


def test_only_files_of_the_two_kinds_are_exports(tmp_path: Path) -> None:
    for name in ("m.onnx", "M.ONNX", "m.xml", "m.pt", "m.pt2", "model"):
        (tmp_path / name).touch()
    (tmp_path / "folder.onnx").mkdir()
    found = {path.name for path in tmp_path.iterdir() if is_export(path)}
    assert found == {"m.onnx", "M.ONNX", "m.xml"}
    assert not is_export(tmp_path / "gone.onnx")
