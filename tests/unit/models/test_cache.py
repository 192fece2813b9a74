"""Exports that are kept: found again for the same network, made anew for another, whole or not there."""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import BrainsegError
from brainseg_cli.models import cache, export, runtimes
from brainseg_cli.models.bundle import write_info
from brainseg_cli.models.cache import (
    ABANDONED_S,
    ASIDE,
    UNUSED_S,
    find_exports,
    move,
    name_export,
    sweep,
    write_aside,
    write_export,
)
from brainseg_cli.models.locate import BundleInfo, open_bundle
from brainseg_cli.models.metadata import _make_seal
from brainseg_cli.models.runtimes import Choice, open_network

BY_ONNX = Choice("onnx", "cpu")


@pytest.fixture
def exports(exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Who exports gets a copy of what was exported before, in no time; and where to."""
    made: list[Path] = []
    known = exported / "cache" / name_export(open_bundle(exported), "onnx")

    def copy(exact: object, target: Path) -> None:
        made.append(target)
        target.write_bytes(whole[: -len(_make_seal(known, [b""]))])

    whole = known.read_bytes()
    monkeypatch.setattr(export, "export_onnx", copy)
    return made


def change(info: BundleInfo, **changes: Any) -> BundleInfo:
    return info.model_copy(update=changes)


def test_the_name_is_of_weights_and_preprocessing_and_of_nothing_else(
    copied: Path, info: BundleInfo, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    name = name_export(open_bundle(copied), "openvino")
    write_info(copied, change(info, threshold=0.9, epoch=7))
    assert name_export(open_bundle(copied), "openvino") == name
    assert name_export(open_bundle(shutil.copytree(copied, tmp_path / "moved")), "openvino") == name
    others = [
        name_export(open_bundle(copied), "onnx"),
        name_export(open_bundle(make_bundle(tmp_path / "other", seed=2)), "openvino"),
        *(
            name_export(replace(open_bundle(copied), info=change(info, preprocess=preprocess)), "openvino")
            for preprocess in (PreprocessConfig(size=64), PreprocessConfig(size=32, intensity="unit"))
        ),
    ]
    assert len({name, *others}) == 5


def test_another_version_of_the_runtime_is_checked_anew(
    copied: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_export(open_bundle(copied), "onnx")
    monkeypatch.setattr(cache.import_runtime("onnx"), "__version__", "99.0")
    assert name_export(open_bundle(copied), "onnx") != name


def test_what_is_there_is_not_made_again(copied: Path, info: BundleInfo, exports: list[Path]) -> None:
    heard: list[str] = []
    open_network(replace(open_bundle(copied), info=change(info, threshold=0.9)), BY_ONNX, tell=heard.append)
    assert exports == [] and heard == []


def flip(data: bytes) -> bytes:
    """One bit of a weight, which any runtime would load."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-200], lambda data: b"\0" * len(data), flip])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_damaged_file_is_made_anew(
    runtime: Any, spoil: Callable[[bytes], bytes], copied: Path, info: BundleInfo, exports: list[Path],
    squares: np.ndarray,
) -> None:  # fmt: skip
    path = copied / "cache" / name_export(open_bundle(copied), runtime)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    network = open_network(open_bundle(copied), Choice(runtime, "cpu"))
    assert len(exports) == 1 and path.read_bytes() != spoil(whole)
    assert network.submit(squares)().shape == (7, 32, 32)
    open_network(open_bundle(copied), Choice(runtime, "cpu"))
    assert len(exports) == 1


def seal(folder: Path) -> None:
    """In place of a folder that cannot be written: nothing can lie below a file, not even for root."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()


def test_a_bundle_that_is_read_only_has_its_export_in_the_users_cache(
    copied: Path, info: BundleInfo, exports: list[Path], tmp_path: Path
) -> None:
    seal(copied / "cache")
    open_network(open_bundle(copied), BY_ONNX)
    name = name_export(open_bundle(copied), "onnx")
    assert [file.name for file in (tmp_path / "user" / "brainseg").iterdir()] == [name]
    assert find_exports(copied, name) == [tmp_path / "user" / "brainseg" / name]
    open_network(open_bundle(copied), BY_ONNX)
    assert len(exports) == 1


def test_what_nobody_uses_any_more_leaves_the_users_cache(copied: Path, exports: list[Path], tmp_path: Path) -> None:
    place, long_ago = tmp_path / "user" / "brainseg", time.time() - UNUSED_S - 60
    place.mkdir(parents=True)
    seal(copied / "cache")
    names = ["used.onnx.onnx", "forgotten.onnx.onnx", "mine.txt"]
    for name in names:
        (place / name).touch()
        os.utime(place / name, (long_ago, long_ago))
    assert find_exports(copied, names[0]) == [place / names[0]]
    open_network(open_bundle(copied), BY_ONNX)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [names[0], names[2], name_export(open_bundle(copied), "onnx")]
    )


def test_where_there_is_no_place_for_it_pytorch_runs_the_model(
    copied: Path, info: BundleInfo, exports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(copied / "cache")
    seal(tmp_path / "user" / "brainseg")
    monkeypatch.setattr(runtimes, "may_have_gpu", lambda: False)
    heard: list[str] = []
    assert open_network(open_bundle(copied), Choice(), tell=heard.append).described == "torch fp32 cpu"
    assert "no place to keep an export" in heard[1]
    with pytest.raises(BrainsegError, match="no place to keep an export"):
        open_network(open_bundle(copied), BY_ONNX)
    assert exports == []  # which takes seconds


def test_a_user_without_a_home_has_the_bundles_cache(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert cache._list_places(copied) == [copied / "cache"]


def test_writers_at_once_do_not_meet(copied: Path, info: BundleInfo, exports: list[Path], squares: np.ndarray) -> None:
    shutil.rmtree(copied / "cache")
    name = name_export(open_bundle(copied), "onnx")
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: write_export(open_bundle(copied), name, "onnx"), range(3)))
    assert len(set(exports)) == 3 and len(set(paths)) == 1
    assert [file.name for file in (copied / "cache").iterdir()] == [name]
    assert open_network(open_bundle(copied), BY_ONNX).submit(squares)().shape == (7, 32, 32)


def test_of_a_network_that_was_trained_again_the_older_export_goes(
    copied: Path,
    info: BundleInfo,
    exports: list[Path],
    make_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "check_export", lambda *_: None)  # the copy is of other weights
    kept = copied / "cache" / name_export(open_bundle(copied), "openvino")
    make_bundle(copied, seed=2)
    open_network(open_bundle(copied), BY_ONNX)
    assert sorted((copied / "cache").iterdir()) == sorted(
        [kept, copied / "cache" / name_export(open_bundle(copied), "onnx")]
    )


def test_what_a_kill_left_behind_goes_once_it_is_old(tmp_path: Path) -> None:
    young, old = tmp_path / f"{ASIDE}young", tmp_path / f"{ASIDE}old"
    for left in (young, old):
        left.mkdir()
        (left / "half.onnx").touch()
    long_ago = time.time() - ABANDONED_S - 60
    os.utime(old, (long_ago, long_ago))
    with write_aside(tmp_path) as aside:  # it may be a folder of the user's
        assert old.exists()
    sweep(tmp_path)
    with write_aside(tmp_path) as aside:
        (aside / "whole.onnx").write_text("new")
        assert aside.parent == tmp_path and young.exists() and not old.exists()
        move([aside / "whole.onnx"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ASIDE}young", "whole.onnx"]


def test_of_what_fails_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_aside(tmp_path / "new") as aside:
        (aside / "half.onnx").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []
