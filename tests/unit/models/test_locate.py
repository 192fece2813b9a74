"""Which folders hold models, and what tells one model from another; both without PyTorch."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.models.locate import find_bundle, find_bundles, hash_bundle

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
