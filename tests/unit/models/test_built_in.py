"""The weights in the package: small, in half precision, found by name, described, and never written beside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from brainseg_cli import load_model
from brainseg_cli.errors import InputError
from brainseg_cli.io.images import read_image, read_mask, write_image
from brainseg_cli.metrics.counts import compute_counts, dice
from brainseg_cli.models.built_in import DEFAULT_MODEL, FOLDER, find_built_in, list_built_in, read_card
from brainseg_cli.models.cache import _list_places
from brainseg_cli.models.locate import find_bundle, open_bundle

MOST_BYTES = 8_000_000
PATIENTS = 80


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in that holds nothing, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_default_is_there_whole_small_and_in_half_precision() -> None:
    assert DEFAULT_MODEL in list_built_in()
    for name in list_built_in():
        bundle = open_bundle(FOLDER / name)  # with its checksums
        weights = load_file(FOLDER / name / "model.safetensors")
        assert {value.dtype for value in weights.values()} <= {np.dtype("float16"), np.dtype("int64")}
        assert all(np.isfinite(value).all() for value in weights.values())
        assert sum(path.stat().st_size for path in (FOLDER / name).iterdir() if path.is_file()) < MOST_BYTES
        assert bundle.info.ranges and bundle.info.channel_names == ["pre-contrast", "FLAIR", "post-contrast"]
        assert not bundle.info.leaky


def test_it_is_found_by_name_unless_something_there_is_called_so(elsewhere: Path) -> None:
    assert find_bundle(Path(DEFAULT_MODEL)) == FOLDER / DEFAULT_MODEL == find_built_in(Path(DEFAULT_MODEL))
    for other in ("lgg-smal", f"./x/{DEFAULT_MODEL}", "..", ""):
        assert find_built_in(Path(other)) is None
    (elsewhere / DEFAULT_MODEL).mkdir()
    with pytest.raises(InputError, match="holds no model"):
        find_bundle(Path(DEFAULT_MODEL))


def test_its_export_goes_to_the_users_cache(elsewhere: Path) -> None:
    assert _list_places(FOLDER / DEFAULT_MODEL) == [elsewhere / "cache" / "brainseg"]


def test_its_card_says_what_a_user_must_know() -> None:
    for name in list_built_in():
        card = read_card(name)
        for told in (
            "CC BY-NC-SA",
            "non-commercial",
            f"{PATIENTS} patients",
            "dice_patient",
            "Known failures",
            "no medical",
        ):
            assert told in card, told


def test_predict_takes_it_where_no_model_is_named(
    elsewhere: Path, brainseg: Callable[..., Any], rng: np.random.Generator
) -> None:
    write_image(elsewhere / "in" / "s_1.png", rng.integers(0, 256, (40, 56, 3), np.uint8))
    before = sorted(FOLDER.rglob("*"))
    ended = brainseg("predict", "in", "--runtime", "torch", "--device", "cpu")
    assert ended.code == 0 and f"the built-in {DEFAULT_MODEL}, for non-commercial use" in ended.err
    (record,) = [json.loads(line) for line in ended.out.splitlines()]
    assert "head" in record["ood"] and read_mask(elsewhere / record["mask"]).shape == (40, 56)
    quiet = brainseg("predict", "in", "-q", "-m", DEFAULT_MODEL, "-o", "named", "--runtime", "torch", "--device", "cpu")
    assert quiet.code == 0 and "built-in" not in quiet.err
    assert (elsewhere / "named" / "s_1.png").read_bytes() == (elsewhere / "masks" / "s_1.png").read_bytes()
    assert sorted(FOLDER.rglob("*")) == before


def test_what_is_called_so_here_is_not_taken_for_it(
    elsewhere: Path, run: Path, brainseg: Callable[..., Any], rng: np.random.Generator
) -> None:
    write_image(elsewhere / "in.png", rng.integers(0, 256, (40, 56, 3), np.uint8))
    (elsewhere / DEFAULT_MODEL).symlink_to(run)
    asked = ("predict", "in.png", "--json", "--overwrite", "--runtime", "torch", "--device", "cpu")
    assert json.loads(brainseg(*asked).out)["models"] == [str(FOLDER / DEFAULT_MODEL)]
    assert json.loads(brainseg(*asked, "-m", DEFAULT_MODEL).out)["models"] == [f"{DEFAULT_MODEL}/model"]


def test_it_is_listed_and_shown(brainseg: Callable[..., Any]) -> None:
    assert f"models: {', '.join(list_built_in())}" in brainseg("info").out.splitlines()
    shown = brainseg("info", "--models").out
    assert shown.endswith(f"\n\n{read_card(list_built_in()[-1])}\n") and shown.startswith("brainseg: ")
    told = json.loads(brainseg("info", "--json", "--models").out)
    assert told["model_cards"] == {name: read_card(name) for name in told["models"]}


@pytest.mark.lgg
def test_on_slices_that_it_was_trained_on_it_is_good(lgg: Path, elsewhere: Path) -> None:
    """No measure of how good it is, but that it is the network that was trained, and its input the right one."""
    model = load_model(runtime="torch", device="cpu")
    scores = []
    for patient in sorted(path for path in lgg.iterdir() if path.is_dir())[::8]:
        masks = {path: read_mask(path) for path in patient.glob("*_mask.tif")}
        largest = max(masks, key=lambda path: int(masks[path].sum()))
        found = model.predict(read_image(largest.with_name(largest.name.replace("_mask", ""))))
        tp, fp, fn, _ = compute_counts(masks[largest], found.mask)
        scores.append(float(dice(tp, fp, fn)))
    assert np.median(scores) > 0.85
