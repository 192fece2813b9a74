"""Which folders hold models, and what tells one model from another; both without PyTorch."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.models.locate import BundleInfo, find_bundle, find_bundles, hash_bundle, read_info

FILES = {"brainseg.json": b"{}", "config.json": b'{"a": 1}', "model.safetensors": bytes(range(256))}


def put_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_run_and_its_model_folder_are_one_and_the_same(tmp_path: Path) -> None:
    model = put_model(tmp_path / "run" / "model")
    for path in (model, tmp_path / "run"):
        assert find_bundle(path) == model
        assert find_bundles(path) == [model]


def test_the_model_inside_comes_before_the_folder_itself(tmp_path: Path) -> None:
    put_model(tmp_path / "run")
    inner = put_model(tmp_path / "run" / "model")
    assert find_bundle(tmp_path / "run") == inner


def test_folds_come_in_natural_order(tmp_path: Path) -> None:
    folds = [put_model(tmp_path / "cv" / f"fold_{number}" / "model") for number in (10, 0, 9, 1, 2)]
    (tmp_path / "cv" / "folds.txt").touch()  # a file is no fold
    put_model(tmp_path / "cv" / "other" / "model")
    assert find_bundles(tmp_path / "cv") == [folds[1], folds[3], folds[4], folds[2], folds[0]]
    with pytest.raises(InputError, match="holds no model"):
        find_bundle(tmp_path / "cv")  # which one?


def test_folds_beside_a_model_are_not_taken_with_it(tmp_path: Path) -> None:
    own = put_model(tmp_path / "run" / "model")
    put_model(tmp_path / "run" / "fold_1" / "model")
    assert find_bundles(tmp_path / "run") == [own]


def test_a_fold_without_a_model_is_named(tmp_path: Path) -> None:
    put_model(tmp_path / "cv" / "fold1" / "model")
    (tmp_path / "cv" / "fold2").mkdir()  # still being trained
    with pytest.raises(InputError, match="holds no model") as caught:
        find_bundles(tmp_path / "cv")
    assert caught.value.where == tmp_path / "cv" / "fold2"


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch], ids=["nothing", "empty", "file"])
def test_where_there_is_no_model_it_is_said_in_one_line(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "run"
    make(path)
    for find in (find_bundle, find_bundles):
        with pytest.raises(InputError, match="holds no model") as caught:
            find(path)
        assert caught.value.where == path and "\n" not in str(caught.value)


def test_the_hash_is_of_names_and_bytes_and_of_nothing_else(tmp_path: Path) -> None:
    model = put_model(tmp_path / "run" / "model")
    expected = hashlib.sha256()
    for name in sorted(FILES):
        expected.update(f"{name} {len(FILES[name])}\n".encode() + FILES[name])
    assert hash_bundle(model) == expected.hexdigest()
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("not part of it")
    assert hash_bundle(moved) == hash_bundle(model)


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_any_byte_shows(tmp_path: Path, name: str) -> None:
    model = put_model(tmp_path / "model")
    before = hash_bundle(model)
    data = bytearray(FILES[name])
    data[-1] ^= 1
    (model / name).write_bytes(data)
    assert hash_bundle(model) != before


def test_no_byte_moves_from_one_file_to_the_next_unseen(tmp_path: Path) -> None:
    model = put_model(tmp_path / "model")
    before = hash_bundle(model)
    (model / "config.json").write_bytes(FILES["config.json"] + FILES["model.safetensors"][:8])
    (model / "model.safetensors").write_bytes(FILES["model.safetensors"][8:])
    assert hash_bundle(model) != before


@pytest.mark.parametrize("name", FILES)
def test_a_model_in_part_has_no_hash(tmp_path: Path, name: str) -> None:
    model = put_model(tmp_path / "model")
    (model / name).unlink()
    with pytest.raises(InputError, match="is not there") as caught:
        hash_bundle(model)
    assert caught.value.where == model / name


def field(number: int, data: bytes) -> bytes:
    """Of a protobuf message."""
    return bytes([number << 3 | 2, len(data) & 127 | 128, len(data) >> 7]) + data


def put_export(path: Path, said: bytes, weights: bytes = b"weights") -> Path:
    """An .onnx or .xml file that says of itself what brainseg.json would."""
    if path.suffix == ".onnx":
        path.write_bytes(field(7, weights) + field(14, field(1, b"brainseg") + field(2, said)))
    else:
        value = said.decode().replace('"', "&quot;")
        path.write_text(f'<net><rt_info><brainseg value="{value}"/></rt_info></net>')
        path.with_suffix(".bin").write_bytes(weights)
    return path


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_an_exported_file_is_a_model_too(tmp_path: Path, name: str, info: BundleInfo) -> None:
    path = put_export(tmp_path / name, info.model_dump_json().encode())
    assert find_bundle(path) == path and find_bundles(path) == [path]
    assert read_info(path) == info
    with pytest.raises(InputError, match="holds no model"):
        find_bundle(tmp_path)  # which file?


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_the_hash_of_an_exported_file_is_of_all_its_bytes_and_not_of_its_name(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix
    hashes = [
        hash_bundle(put_export(tmp_path / f"{stem}{suffix}", said, weights))
        for stem, said, weights in [("a", b"{}", b"1"), ("b", b"{}", b"1"), ("c", b"[]", b"1"), ("d", b"{}", b"2")]
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_an_exported_file_without_its_weights_has_no_hash(tmp_path: Path) -> None:
    path = put_export(tmp_path / "m.xml", b"{}")
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match="is not there"):
        hash_bundle(path)


@pytest.mark.parametrize(
    ("said", "told"),
    [(b"{", "cannot be read as JSON"), (b"[]", "the file"), (b'{"schema_version": 99}', "update brainseg")],
)
def test_an_exported_file_that_says_nonsense_is_told_in_one_line(tmp_path: Path, said: bytes, told: str) -> None:
    path = put_export(tmp_path / "m.onnx", said)
    with pytest.raises(InputError, match=told) as caught:
        read_info(path)
    assert caught.value.where == path and "\n" not in str(caught.value)


def test_finding_and_hashing_loads_no_framework(tmp_path: Path) -> None:
    put_model(tmp_path / "model")
    code = (
        "import sys; from pathlib import Path\n"
        "from brainseg_cli.models.locate import find_bundles, hash_bundle\n"
        "print(*map(hash_bundle, find_bundles(Path(sys.argv[1]))), 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [hash_bundle(tmp_path / "model"), "False", "False"]
