"""The curves of a run, from the shortest to the worst table a run can leave behind."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from brainseg_cli.errors import InputError
from brainseg_cli.figures.curves import SERIES, draw_curves
from brainseg_cli.io.images import read_image


def table(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-epoch / 4)
    columns = {"epoch": epoch, "lr": np.full(epochs, 1e-3)}
    for side, scale in (("train", 1.0), ("val", 0.7)):
        columns |= {f"{side}_loss": 1.5 - scale * rise, f"{side}_accuracy": 0.98 + 0.01 * scale * rise}
        columns |= {f"{side}_{name}": scale * rise for name in ("dice", "iou")}
    return pd.DataFrame(columns | {"val_dice_patient": 0.5 * rise})


def ink(path: Path, series: str) -> int:
    """How many pixels have the colour of this series, curve and legend together."""
    colour = np.rint(np.array(to_rgb(SERIES[series]["color"])) * 255).astype(int)
    return int((np.abs(read_image(path).astype(int) - colour).max(axis=-1) <= 2).sum())


def test_all_series_are_drawn_and_the_metrics_left_alone(tmp_path: Path) -> None:
    metrics = table(12)
    before = metrics.copy()
    path = tmp_path / "figures" / "curves.png"
    draw_curves(metrics, path, title="run", best_epoch=9)
    for series in SERIES:
        assert ink(path, series) > 300
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]
    pd.testing.assert_frame_equal(metrics, before)


def test_the_global_style_is_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw_curves(table(2), tmp_path / "c.png", title="run")
    assert dict(matplotlib.rcParams) == before


def test_a_single_epoch_shows_as_points(tmp_path: Path) -> None:
    one, none = tmp_path / "one.png", tmp_path / "none.png"
    draw_curves(table(1), one, title="run")
    blank = table(1).astype(float)
    blank.loc[:, "val_dice":"val_iou"] = np.nan
    blank[["val_loss", "val_accuracy"]] = np.nan
    draw_curves(blank, none, title="run")
    assert ink(one, "val") > ink(none, "val") > 0  # what is left is the legend


def test_the_best_epoch_is_marked(tmp_path: Path) -> None:
    marked, unmarked, elsewhere = (tmp_path / f"{name}.png" for name in "abc")
    draw_curves(table(5), marked, title="run", best_epoch=3)
    draw_curves(table(5), unmarked, title="run")
    draw_curves(table(5), elsewhere, title="run", best_epoch=77)
    assert marked.read_bytes() != unmarked.read_bytes()
    assert elsewhere.read_bytes() == unmarked.read_bytes()
    greys = [
        (np.abs(read_image(path).astype(int) - 0.45 * 255).max(axis=-1) < 2).sum(axis=0) for path in (marked, unmarked)
    ]
    assert greys[0].max() > 600 > greys[1].max()  # a line from top to bottom of both panels of a column


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    metrics = table(6)
    metrics.loc[2:4, "val_loss"] = [np.nan, np.inf, -np.inf]
    metrics.loc[2:3, "val_dice_patient"] = np.nan
    metrics["val_iou"] = np.nan
    draw_curves(metrics, tmp_path / "c.png", title="run", best_epoch=3)
    assert ink(tmp_path / "c.png", "val_patient") > 100


@pytest.mark.parametrize("title", ["läuft $a_b % 脳", "long " * 60])
def test_odd_titles_are_drawn(tmp_path: Path, title: str) -> None:
    draw_curves(table(2), tmp_path / "c.png", title=title)
    assert read_image(tmp_path / "c.png").shape == (1120, 1600, 3)


def test_a_vector_figure_is_written_by_its_suffix(tmp_path: Path) -> None:
    draw_curves(table(2), tmp_path / "c.svg", title="run")
    assert "<svg" in (tmp_path / "c.svg").read_text(encoding="utf-8")


def test_a_table_that_is_not_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column val_loss, val_dice_patient"):
        draw_curves(table(2).drop(columns=["val_loss", "val_dice_patient"]), tmp_path / "c.png", title="run")
    with pytest.raises(InputError, match="no epoch"):
        draw_curves(table(0), tmp_path / "c.png", title="run")
    assert not any(tmp_path.iterdir())
