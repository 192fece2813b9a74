"""Lanes that infer in parallel: each slice to its place, faults to who waits, and a first inference alone."""

import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.models import exported as running
from brainseg_cli.models.exported import ExportedNetwork, open_exported
from brainseg_cli.models.locate import BundleInfo

LANES = 4


def test_every_slice_comes_back_to_its_place_however_long_it_took(info: BundleInfo) -> None:
    pixels = np.zeros((9, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(9)

    def infer(one: np.ndarray) -> np.ndarray:
        assert one.shape == (1, 32, 32, 3)
        time.sleep(0.01 if one[0, 0, 0, 0] % 2 else 0)
        return one[..., 0].astype(np.float32)

    pending = ExportedNetwork(infer, LANES, info, "lanes").submit(pixels)
    np.testing.assert_array_equal(pending()[:, 0, 0], np.arange(9))
    np.testing.assert_array_equal(pending(), pending())


def test_what_goes_wrong_in_a_lane_is_raised_where_it_is_waited_for(info: BundleInfo) -> None:
    def infer(one: np.ndarray) -> np.ndarray:
        raise MemoryError("a lane")

    pending = ExportedNetwork(infer, LANES, info, "lanes").submit(np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(MemoryError, match="a lane"):
        pending()


class Compiled:
    """In place of OpenVINO's: remembers how many infer at a time, before one has ended and after."""

    def __init__(self) -> None:
        self.lock, self.inside, self.ended = threading.Lock(), 0, 0
        self.most = {"before": 0, "after": 0}

    def get_property(self, _: str) -> int:
        return LANES

    def create_infer_request(self) -> Any:
        return SimpleNamespace(
            infer=self.infer, get_output_tensor=lambda _: SimpleNamespace(data=np.zeros((1, 32, 32)))
        )

    def infer(self, *_: object, **__: object) -> None:
        with self.lock:
            self.inside += 1
            when = "after" if self.ended else "before"
            self.most[when] = max(self.most[when], self.inside)
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
            self.ended += 1


def test_openvinos_first_inference_is_alone_and_no_other(info: BundleInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first ones at once wait for each other for ever, now and then."""
    compiled = Compiled()
    core = SimpleNamespace(
        read_model=lambda _: SimpleNamespace(reshape=lambda _: None), compile_model=lambda *_: compiled
    )
    monkeypatch.setattr(running, "load_openvino", lambda: core)
    monkeypatch.setattr(running, "_BEGUN", threading.Event())
    network = open_exported(Path("m.onnx"), [b""], info, "openvino", "fp32")
    network.submit(np.ones((16, 32, 32, 3), np.uint8))()
    assert compiled.ended == 16
    assert compiled.most["before"] == 1 and compiled.most["after"] > 1


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_file_that_cannot_be_loaded_is_told_in_one_line(runtime: str, info: BundleInfo, tmp_path: Path) -> None:
    for data in (b"", b"\x08\x07"):
        with pytest.raises(InputError, match="cannot be loaded by O") as caught:
            open_exported(tmp_path / "m.onnx", [data], info, runtime, "fp32")
        assert caught.value.where == tmp_path / "m.onnx" and "\n" not in str(caught.value)


def test_what_is_queued_is_given_up_and_what_comes_after_is_not(info: BundleInfo) -> None:
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def infer(pixels: np.ndarray) -> np.ndarray:
        asked.append(int(pixels[0, 0, 0, 0]))
        begun.set()
        assert go_on.wait(10)
        return pixels[..., 0].astype(np.float32)

    network = ExportedNetwork(infer, 1, info, "slow")
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    pending = network.submit(pixels)
    assert begun.wait(10)
    network.cancel()
    go_on.set()
    with pytest.raises(CancelledError):
        pending()
    assert network.submit(pixels[2:])().shape == (1, 32, 32)
    assert asked == [0, 2]
