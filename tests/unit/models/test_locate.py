"""Which folders hold models, and what tells one model from another; both without PyTorch."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_sample import about

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.models.locate import BundleInfo, find_bundle, find_bundles, open_bundle, open_bundles, read_info
from brainseg_cli.models.metadata import list_parts, seal

FILES = {
    "brainseg.json": about().model_dump_json().encode(),
    "config.json": b'{"a": 1}',
    "model.safetensors": bytes(range(256)),
}


SAID = FILES["brainseg.json"]


def hash_bundle(path: Path) -> str:
    return open_bundle(path).sha256


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
    listed = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))  # as sha256sum
    assert hash_bundle(model) == hashlib.sha256(listed.encode()).hexdigest()
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("not part of it")
    assert hash_bundle(moved) == hash_bundle(model)


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_any_byte_shows(tmp_path: Path, name: str) -> None:
    model = put_model(tmp_path / "model")
    before = hash_bundle(model)
    data = bytearray(FILES[name].replace(b'"epoch":1', b'"epoch":2'))
    data[-1] ^= name != "brainseg.json"
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
        for stem, said, weights in [("a", SAID, b"1"), ("b", SAID, b"1"), ("c", SAID + b" ", b"1"), ("d", SAID, b"2")]
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
        "from brainseg_cli.models.locate import open_bundles\n"
        "print(open_bundles([Path(sys.argv[1])])[0].sha256, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [hash_bundle(tmp_path / "model"), "False", "False"]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_as_it_was_written_is_named(name: str, tmp_path: Path) -> None:
    model = put_model(tmp_path / "model")
    sums = {part: hashlib.sha256(data).hexdigest() for part, data in FILES.items() if part != "brainseg.json"}
    (model / "brainseg.json").write_text(about(sha256=sums).model_dump_json())
    whole = open_bundle(model)
    damage(model / name)
    with pytest.raises(InputError, match=r"its checksum does not fit .*--no-verify") as caught:
        open_bundle(model)
    assert caught.value.where == model / name and "\n" not in str(caught.value)
    assert open_bundle(model, verify=False).sha256 != whole.sha256  # and is told by another hash


def test_a_bundle_without_sums_is_of_before_there_were_any(tmp_path: Path) -> None:
    model = put_model(tmp_path / "model")
    damage(model / "model.safetensors")
    assert open_bundle(model).info.sha256 == {}


def test_a_file_that_was_replaced_since_it_was_hashed_is_not_loaded(tmp_path: Path) -> None:
    bundle = open_bundle(put_model(tmp_path / "model"))
    assert bundle.read("model.safetensors") == FILES["model.safetensors"]
    damage(bundle.path / "model.safetensors")
    with pytest.raises(InputError, match="was replaced while the model was loaded"):
        bundle.read("model.safetensors")


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_a_sealed_file_tells_that_any_byte_of_it_changed(name: str, tmp_path: Path) -> None:
    path = put_export(tmp_path / name, SAID)
    open_bundle(path)  # one of before there were seals
    seal(path)
    assert open_bundle(path).info == about() and read_info(path) == about()
    whole = {part: part.read_bytes() for part in list_parts(path)}
    for part, data in whole.items():
        for at in range(0, len(data), 7):
            part.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            if at >= len(data) - 82 and part == path:
                continue  # a seal that is damaged may be none: what it is of is whole
            with pytest.raises(InputError):
                open_bundle(path)
        part.write_bytes(data)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".ckpt", ".PT2"])
def test_a_file_that_could_run_code_is_told_and_not_opened(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    for data in (b"", b"cos\nsystem\n(S'touch sprung'\ntR."):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is not loaded: a file of this kind can run code"):
            find_bundle(path)


def test_the_same_model_twice_is_refused(tmp_path: Path) -> None:
    models = [put_model(tmp_path / name / "model") for name in "ab"]
    with pytest.raises(UsageError, match="hold the same model"):
        open_bundles(models)
