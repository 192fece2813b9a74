"""brainseg overlay: paths to stdout, exit codes, and figures that show what they should."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.figures.overlay import PREDICTION_COLOUR, REFERENCE_COLOUR
from brainseg_cli.io.images import read_image, write_image, write_mask

Program = Callable[..., Any]


@pytest.fixture
def scene(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two images of 40 x 56 with masks and, beside them, references."""
    for number, left in ((2, 8), (10, 20)):
        image, mask = rng.integers(0, 80, (40, 56, 3), dtype=np.uint8), np.zeros((40, 56), np.uint8)
        mask[10:25, left : left + 14] = 1
        write_image(tmp_path / "in" / "p" / f"p_{number}.tif", image)
        write_mask(tmp_path / "in" / "p" / f"p_{number}_mask.tif", mask)
        write_mask(tmp_path / "masks" / "p" / f"p_{number}.png", np.roll(mask, 4, axis=1))
    return tmp_path


def holds(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((read_image(path) == colour).all(axis=-1).any())


def test_the_figures_paths_in_a_persons_order(brainseg: Program, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene)
    ended = brainseg("overlay", "in", "--masks", "masks")
    assert ended.code == 0
    figures = [Path(line) for line in ended.out.splitlines()]
    assert figures == [Path("figures/p/p_2.png"), Path("figures/p/p_10.png")]
    assert all(holds(path, PREDICTION_COLOUR) and not holds(path, REFERENCE_COLOUR) for path in figures)
    assert "2 figures in figures" in ended.err


def test_reference_and_channel(brainseg: Program, scene: Path) -> None:
    inputs = ["overlay", scene / "in", "--masks", scene / "masks", "--reference", scene / "in"]
    ended = brainseg(*inputs, "-o", scene / "out", "--channel", "1", "--json", "-q")
    result = json.loads(ended.out)
    assert (ended.code, ended.err, result["failures"]) == (0, "", [])
    for path in map(Path, result["figures"]):
        assert holds(path, PREDICTION_COLOUR) and holds(path, REFERENCE_COLOUR)
        assert read_image(path).shape[0] >= 40
    wrong = brainseg(*inputs, "-o", scene / "other", "--channel", "3")
    assert wrong.code != 0 and "channel" in wrong.err and wrong.out == ""


def test_an_image_without_a_mask_is_named_and_the_rest_drawn(brainseg: Program, scene: Path) -> None:
    (scene / "masks" / "p" / "p_2.png").unlink()
    ended = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out")
    assert ended.code == 3 and ended.out == f"{scene / 'out' / 'p' / 'p_10.png'}\n"
    (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "p_2.tif" in told
    (scene / "masks" / "p" / "p_10.png").write_bytes(b"broken")
    ended = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "none", "--json")
    assert ended.code == 1 and len(json.loads(ended.out)["failures"]) == 2


def test_nothing_is_drawn_over_unless_told(brainseg: Program, scene: Path) -> None:
    arguments = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out"]
    assert brainseg(*arguments).code == 0
    refused = brainseg(*arguments)
    assert (refused.code, refused.out) == (1, "") and "--overwrite" in refused.err
    assert brainseg(*arguments, "--overwrite").code == 0
    into_the_masks = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "masks", "--overwrite"]
    assert brainseg(*into_the_masks).code == 2
