"""The curves of a training run: loss, dice, iou and accuracy by epoch."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import atomic_path

PANELS = {"loss": "Loss", "dice": "Dice", "iou": "IoU", "accuracy": "Pixel accuracy"}

# Okabe and Ito's colour-blind-safe palette; dashes and weight tell the lines apart without colour
SERIES: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072B2", "linestyle": (0, (4, 1.5)), "label": "train"},
    "val": {"color": "#D55E00", "linestyle": "-", "label": "val"},
    "val_patient": {"color": "#009E73", "linestyle": (0, (1, 1)), "label": "val, mean over patients"},
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.usetex": False,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "0.35",
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "savefig.dpi": 160,
}
MARKED_EPOCHS = 40
TITLE_CHARACTERS = 90


def draw_curves(metrics: pd.DataFrame, path: Path, *, title: str, best_epoch: int | None = None) -> None:
    """Draw four panels by epoch, train against val, and write them to `path` (.png, .svg or .pdf), whole.

    `metrics` has one row an epoch: `epoch`, then `train_` and `val_` of loss, dice, iou and accuracy, and
    `val_dice_patient`, drawn in the dice panel. Values that are not finite are left out; a line joins the
    epochs that have one. `best_epoch` is marked, with its val values, where the table has it. InputError
    where a column is missing or there is no row.
    """
    columns = [
        "epoch",
        *(f"{side}_{name}" for name in PANELS for side in ("train", "val")),
        "val_dice_patient",
    ]
    missing = [column for column in columns if column not in metrics.columns]
    if missing:
        raise InputError(f"the metrics have no column {', '.join(missing)}")
    if metrics.empty:
        raise InputError("the metrics hold no epoch")
    table = metrics[columns].astype(float).replace([np.inf, -np.inf], np.nan)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 7), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 2, sharex=True)
        for axes, (name, label) in zip(panels.flat, PANELS.items(), strict=True):
            _draw_panel(axes, table, name, label, best_epoch)
        for axes in panels[1]:
            axes.set_xlabel("epoch")
        shown = title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 1] + "…"
        figure.suptitle(shown, fontsize=13)
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        with atomic_path(path) as aside, warnings.catch_warnings():
            # a title in a script that the font lacks is drawn as boxes, and that is all there is to say
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(aside, format=path.suffix.lstrip("."))


def _draw_panel(axes: Axes, table: pd.DataFrame, name: str, label: str, best_epoch: int | None) -> None:
    drawn = {"train": f"train_{name}", "val": f"val_{name}"}
    if name == "dice":
        drawn["val_patient"] = "val_dice_patient"
    marker = "o" if len(table) <= MARKED_EPOCHS else ""
    for series, column in drawn.items():
        known = table.dropna(subset=[column])
        axes.plot(known["epoch"], known[column], marker=marker, **SERIES[series])
    first, last = table["epoch"].min(), table["epoch"].max()
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if name in ("dice", "iou"):
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(label, loc="left", fontweight="bold", fontsize=11)
    best = table[table["epoch"] == best_epoch]
    if best_epoch is not None and not best.empty:
        axes.axvline(float(best_epoch), color="0.45", linewidth=1, zorder=1, label=f"best epoch ({best_epoch})")
        values = [_tell(series, best[column].iloc[0]) for series, column in drawn.items() if series != "train"]
        axes.set_title("at best: " + ", ".join(values), loc="right", fontsize=9, color="0.3")


def _tell(series: str, value: float) -> str:
    return f"{series.replace('_', ' ')} {value:.3f}" if np.isfinite(value) else f"no {series}"
