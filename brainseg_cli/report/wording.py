"""How numbers are written for people: three or four digits, with the whole number never far away."""

import math
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Literal

from brainseg_cli.types import Json

Kind = Literal["share", "distance", "rate", "count", "text"]
"""A share lies in [0, 1], a distance is in px or mm, a rate is any other real number, a count is whole."""

UNDEFINED = "–"
THIN_SPACE, MINUS = "\N{NARROW NO-BREAK SPACE}", "\N{MINUS SIGN}"

FAMILIES = {
    "Dice": ("dice_",),
    "IoU": ("iou_",),
    "Pixels": ("accuracy", "sensitivity", "specificity", "precision"),
    "Distance": ("hd95_", "assd_", "nsd_"),
    "Lesions": ("lesion_",),
    "Calibration": ("ece", "brier"),
}


def kind_of(metric: str) -> Kind:
    """What sort of number a metric is, by its name."""
    if metric.startswith(("hd95_", "assd_")):
        return "distance"
    return "rate" if metric.startswith("lesion_false_alarm") else "share"


def format_number(value: float | None, kind: Kind = "share", *, signed: bool = False) -> str:
    """`value` to three or four digits; None and NaN, which are not defined, as a dash.

    A share has three decimals, and more where these would round it to 0 or 1, which it is not.
    """
    if value is None or math.isnan(value):
        return UNDEFINED
    size = abs(value)
    if kind == "count":
        text = _group(round(size))
    elif size == 0 or (size == 1 and kind == "share"):
        text = f"{size:g}"
    elif kind == "distance" and size >= 1:
        text = f"{size:.{1 if size >= 100 else 2}f}"
    elif kind == "rate" or size < 0.01:
        text = f"{size:.3g}"
    elif 0.9995 <= size < 1:
        text = f"{math.floor(size * 1e5) / 1e5:g}"
    else:
        text = f"{size:.3f}"
    sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def format_interval(interval: Iterable[float] | None, kind: Kind = "share", *, signed: bool = False) -> str:
    """`0.782 to 0.897`; a dash where there is none."""
    if interval is None:
        return UNDEFINED
    return " to ".join(format_number(bound, kind, signed=signed) for bound in interval)


def format_value(value: Any) -> str:
    """A setting or an origin as text: lists by commas, words for true, false and none."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def group_metrics(names: Iterable[str]) -> dict[str, list[str]]:
    """Metric names by family, families and names in their order; what belongs to none comes last, as Other."""
    groups: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in names:
        family = next((family for family, starts in FAMILIES.items() if name.startswith(starts)), "Other")
        groups.setdefault(family, []).append(name)
    return {family: members for family, members in groups.items() if members}


def tell_what(summary: Json) -> str:
    """What was measured: a run, or one folder against another, by their last names."""
    if "run" in summary:
        return str(summary["run"])
    prediction, reference = (PurePath(summary[side]).name or summary[side] for side in ("prediction", "reference"))
    return f"{prediction} against {reference}"


def tell_where(summary: Json) -> str:
    """On which slices: split, epoch and threshold as far as there are any."""
    parts = [f"{summary['split']} split"] if summary.get("split") else []
    if summary.get("epoch") is not None:
        parts.append(f"epoch {summary['epoch']}")
    if summary.get("folds"):
        parts.append(f"each patient by the one of {summary['folds']} networks that has not seen them")
    if summary.get("threshold") is None and summary.get("thresholds"):
        parts.append(f"thresholds by fold {', '.join(f'{each:.4g}' for each in summary['thresholds'])}")
    if summary.get("threshold") is not None:
        origin = {"val": "chosen on val", "given": "as given", "default": "the default"}[summary["threshold_from"]]
        parts.append(f"threshold {summary['threshold']:.4g}, {origin}")
    return "; ".join(parts)


def tell_left_out(summary: Json) -> list[tuple[str, str]]:
    """(metrics, what they do not count), metrics of the same exclusions together; nothing left out, no row."""
    exclusions: dict[str, list[str]] = {}
    for name, counts in summary["left_out"].items():
        told = ", ".join(f"{what.replace('_', ' ')} ({_group(n)})" for what, n in counts.items() if n)
        if told:
            exclusions.setdefault(told, []).append(name)
    return [(", ".join(names), told) for told, names in exclusions.items()]


def tell_one_empty(summary: Json) -> list[tuple[str, str]]:
    """(metrics, how many cases had one mask empty), metrics of the same counts together; none, no row."""
    cases: dict[str, list[str]] = {}
    for name, count in summary["one_empty"].items():
        if count["missed"] or count["false_alarm"]:
            told = (
                f"{count['of']} where nothing was predicted ({_group(count['missed'])}), "
                f"or where there was nothing to find ({_group(count['false_alarm'])})"
            )
            cases.setdefault(told, []).append(name)
    return [(", ".join(names), told) for told, names in cases.items()]


def tell_empty(count: Json | None) -> str:
    """The same of one metric in few words, to stand beside its value; nothing where there is nothing to say."""
    if not count or not (count["missed"] or count["false_alarm"]):
        return ""
    return (
        f"{count['of']} with one mask empty: {_group(count['missed'])} missed, {_group(count['false_alarm'])} invented"
    )


def tell_lesions(summary: Json) -> str:
    """What a lesion is here: by how many patients are connected how, 26 in 3-D or 8 within a slice."""
    where = {"26": "26-connected in 3-D", "8": "8-connected within a slice"}
    told = [f"{where[key]} (patients: {_group(n)})" for key, n in summary["lesions"]["connectivity"].items()]
    return f"Lesions are {' or '.join(told)}." if told else ""


def _group(count: int) -> str:
    return f"{count:,}".replace(",", THIN_SPACE) if count >= 10_000 else str(count)
