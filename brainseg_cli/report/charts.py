"""The charts of a report, each as SVG that also stands alone: colours are the page's, or these where there is no page.

Okabe and Ito's colour-blind-safe palette. Whatever is drawn says what it is when pointed at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from brainseg_cli.report.svg import INK, MUTED, RULE, Frame, choose_ticks, drawing, element, label
from brainseg_cli.report.wording import format_number

FIRST = "var(--series-1, #0072b2)"
SECOND = "var(--series-2, #d55e00)"
BAND = "var(--band, #cfe3f1)"
WIDTH, LEFT, RIGHT = 560, 54, 544

DOT_PX = 4.2
MOST_DOTS = 300
BINS = 40


def draw_patients(
    values: Mapping[str, float], *, mean: float | None, interval: Sequence[float] | None, metric: str
) -> Markup:
    """The distribution of a share in [0, 1] over patients: a dot each, or a histogram above MOST_DOTS.

    `mean` is a line and `interval`, its doubt, a band. No patient gives an empty frame.
    """
    many = len(values) > MOST_DOTS
    counts = np.histogram(list(values.values()), bins=BINS, range=(0, 1))[0]
    swarm = [] if many else _swarm(sorted(values.items(), key=lambda item: item[1]), (RIGHT - LEFT) * 1.0)
    half = 90.0 if many else max([36.0, *(abs(offset) + DOT_PX + 8 for _, _, offset in swarm)])
    top, bottom = 30.0, 30.0 + 2 * half
    frame = Frame(LEFT, RIGHT, top, bottom, (0, 1), (0, float(max(counts.max(), 1))))
    whole = [tick for tick in choose_ticks(*frame.y_range, count=4) if tick.is_integer()]
    drawn = frame.y_axis("patients", whole) if many else []
    if interval is not None:
        low, high = (frame.x(bound) for bound in interval)
        drawn.append(element("rect", x=low, y=top, width=max(high - low, 1.0), height=bottom - top, fill=BAND))
    for at, count in enumerate(counts.tolist()):
        if many and count:
            title = element("title", f"{count} patients from {at / BINS:g} to {(at + 1) / BINS:g}")
            x, y = frame.x(at / BINS), frame.y(count)
            width = (RIGHT - LEFT) / BINS - 1
            drawn.append(element("rect", title, x=x, y=y, width=width, height=bottom - y, fill=FIRST))
    for name, value, offset in swarm:
        title = element("title", f"{name}: {format_number(value)}")
        place: dict[str, Any] = {"cx": frame.x(value), "cy": (top + bottom) / 2 + offset, "r": DOT_PX}
        drawn.append(element("circle", title, **place, fill=FIRST, fill_opacity=0.85))
    if mean is not None:
        x = frame.x(mean)
        drawn.append(element("line", x1=x, x2=x, y1=top, y2=bottom, stroke=SECOND, stroke_width=2))
        drawn.append(label(f"mean {format_number(mean)}", x, top - 8, anchor="end" if mean > 0.85 else "middle"))
    drawn += frame.x_axis(f"{metric}, by patient", [0, 0.2, 0.4, 0.6, 0.8, 1])
    about = f"{metric} of {len(values)} patients, mean {format_number(mean)}"
    return drawing(WIDTH, bottom + 48, about, *drawn)


def draw_reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Of the pixels given a probability, the share that is tumour; below, how many pixels there are (log scale).

    `bins` have low, high, pixels, mean_prob and tumour_share, the last two None in a bin without pixels.
    """
    frame = Frame(LEFT, RIGHT, 34, 300, (0, 1))
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    drawn = frame.y_axis("share that is tumour", ticks)
    drawn.append(element("path", d=frame.path([(0, 0), (1, 1)]), stroke=MUTED, stroke_dasharray="5 4", fill="none"))
    drawn.append(label("dashed: perfectly calibrated", RIGHT - 6, frame.y(0) - 10, anchor="end", fill=MUTED))
    filled = [entry for entry in bins if entry["pixels"]]
    points = [(entry["mean_prob"], entry["tumour_share"]) for entry in filled]
    if points:
        drawn.append(element("path", d=frame.path(points), stroke=FIRST, stroke_width=2, fill="none"))
    power = max([1.0, *(float(np.log10(entry["pixels"])) for entry in filled)])
    below = Frame(LEFT, RIGHT, 336, 392, (0, 1), (0, power))
    drawn += below.y_axis("pixels", [])
    for tick in range(0, int(power) + 1, max(1, int(power) // 2)):
        drawn.append(label(f"1e{tick}" if tick else "1", LEFT - 8, below.y(tick) + 4.5, anchor="end", fill=MUTED))
    for entry, (prob, share) in zip(filled, points, strict=True):
        told = (
            f"{entry['low']:g} to {entry['high']:g}: {entry['pixels']} pixels, "
            f"mean probability {format_number(prob)}, tumour {format_number(share)}"
        )
        title = element("title", told)
        drawn.append(element("circle", title, cx=frame.x(prob), cy=frame.y(share), r=4.5, fill=FIRST))
        x, y = below.x(entry["low"]) + 1, below.y(float(np.log10(entry["pixels"]))) - 1
        width = below.x(entry["high"]) - x - 1
        drawn.append(element("rect", title, x=x, y=y, width=width, height=below.bottom - y, fill=FIRST))
    drawn += below.x_axis("probability", ticks)
    return drawing(WIDTH, 440, "reliability: the share of tumour by the probability given", *drawn)


def draw_sweep(points: Sequence[Mapping[str, float | None]], *, chosen: float | None) -> Markup:
    """Dice by threshold on val, the threshold in use (`chosen`) and 0.5 marked; one or more `points`, in order."""
    names = {"dice_patient": (FIRST, ""), "dice_pooled": (SECOND, "7 4")}
    lines = {
        name: [(float(point["threshold"] or 0), float(value)) for point in points if (value := point[name]) is not None]
        for name in names
    }
    values = [value for line in lines.values() for _, value in line] or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, 0.01)
    frame = Frame(LEFT, RIGHT, 34, 392, (0, 1), (max(0.0, low - margin), min(1.0, high + margin)))
    drawn = frame.y_axis("dice on val", choose_ticks(*frame.y_range))
    marks = {0.5: "0.5"} if chosen is None or abs(chosen - 0.5) >= 0.005 else {}
    marks |= {} if chosen is None else {chosen: f"in use: {chosen:.4g}"}
    first, apart = min(marks), max(marks) - min(marks)
    for threshold, told in marks.items():
        x, colour, dashes = frame.x(threshold), *((INK, "") if threshold == chosen else (MUTED, "3 3"))
        place = {"x1": x, "x2": x, "y1": frame.top, "y2": frame.bottom}
        drawn.append(element("line", **place, stroke=colour, stroke_dasharray=dashes))
        anchor = "middle" if apart == 0 or apart >= 0.25 else "end" if threshold == first else "start"
        drawn.append(label(told, x, frame.top - 6, anchor=anchor, fill=colour))
    for (name, line), (colour, dashes), row in zip(lines.items(), names.values(), (44, 22), strict=True):
        path = frame.path(line) if line else ""
        drawn.append(element("path", d=path, stroke=colour, stroke_width=2, stroke_dasharray=dashes, fill="none"))
        for threshold, value in line:
            title = element("title", f"threshold {threshold:.4g}: {name} {format_number(value)}")
            drawn.append(element("circle", title, cx=frame.x(threshold), cy=frame.y(value), r=3, fill=colour))
        y = frame.bottom - row
        drawn.append(element("path", d=f"M{LEFT + 12} {y}h28", stroke=colour, stroke_width=2, stroke_dasharray=dashes))
        drawn.append(label(name, LEFT + 48, y + 4.5, anchor="start"))
    drawn += frame.x_axis("threshold", [0, 0.2, 0.4, 0.6, 0.8, 1])
    return drawing(WIDTH, 440, "dice on val by threshold", *drawn)


def draw_differences(
    patients: Sequence[Mapping[str, Any]], *, a: str, b: str, mean: float | None, interval: Sequence[float] | None
) -> Markup:
    """The difference a - b of every patient, a bar each in the order given, with the mean and its interval.

    `patients` have patient_id, a, b and difference; without one the frame is empty.
    """
    values = [float(patient["difference"]) for patient in patients]
    low, high = 1.1 * min([-0.02, *values, *(interval or ())]), 1.1 * max([0.02, *values, *(interval or ())])
    frame = Frame(LEFT, RIGHT, 34, 270, (0, max(len(values), 1)), (low, high))
    drawn = frame.y_axis(f"difference in dice: above 0, {_shorten(a)} is better", choose_ticks(low, high))
    if interval is not None:
        below, above = (frame.y(bound) for bound in interval)
        height = max(below - above, 1.0)
        drawn.append(element("rect", x=LEFT, y=above, width=RIGHT - LEFT, height=height, fill=BAND))
    bar = min(18.0, (RIGHT - LEFT) / frame.x_range[1] * 0.8)
    for at, (patient, value) in enumerate(zip(patients, values, strict=True)):
        told = (
            f"{patient['patient_id']}: {format_number(value, signed=True)} "
            f"({format_number(patient['a'])} against {format_number(patient['b'])})"
        )
        y, end = sorted((frame.y(0), frame.y(value)))
        place: dict[str, Any] = {"x": frame.x(at + 0.5) - bar / 2, "y": y, "width": bar, "height": max(end - y, 0.5)}
        drawn.append(element("rect", element("title", told), **place, fill=SECOND if value < 0 else FIRST))
    drawn.append(element("line", x1=LEFT, x2=RIGHT, y1=frame.y(0), y2=frame.y(0), stroke=INK))
    if mean is not None:
        y = frame.y(mean)
        drawn.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, stroke=MUTED, stroke_dasharray="6 4"))
        told = f"mean {format_number(mean, signed=True)}"
        # the bars rise from left to right: the empty corner is above on the left, below on the right
        drawn.append(
            label(told, LEFT + 4, y - 6, anchor="start") if mean >= 0 else label(told, RIGHT, y + 17, anchor="end")
        )
    drawn.append(label("patients, by difference", (LEFT + RIGHT) / 2, frame.bottom + 24, fill=MUTED))
    return drawing(WIDTH, 304, f"difference in dice between {a} and {b}, by patient", *drawn)


def draw_whisker(value: float | None, interval: Sequence[float] | None, nothing: float | None) -> Markup:
    """A share in [0, 1] small enough for a table: a dot, its interval, and a hollow tick for finding nothing."""
    frame = Frame(6, 134, 0, 16, (0, 1))
    drawn = [element("line", x1=frame.left, x2=frame.right, y1=8, y2=8, stroke=RULE)]
    if nothing is not None:
        told = element("title", f"finding nothing: {format_number(nothing)}")
        drawn.append(
            element("rect", told, x=frame.x(nothing) - 1.5, y=2, width=3, height=12, fill="none", stroke=MUTED)
        )
    if interval is not None:
        low, high = (frame.x(bound) for bound in interval)
        drawn.append(element("line", x1=low, x2=high, y1=8, y2=8, stroke=FIRST, stroke_width=3, stroke_opacity=0.5))
    if value is not None:
        drawn.append(element("circle", cx=frame.x(value), cy=8, r=4, fill=FIRST))
    return element("svg", *drawn, class_="whisker", viewBox="0 0 140 16", width=140, height=16, aria_hidden="true")


def _swarm(values: Sequence[tuple[str, float]], width_px: float) -> list[tuple[str, float, float]]:
    """(name, value, offset in px): dots in order of value, each as near to the middle as its neighbours allow."""
    placed: list[tuple[str, float, float]] = []
    apart = 2 * DOT_PX + 0.8
    for name, value in values:
        near = [(at, offset) for _, at, offset in placed if (value - at) * width_px < apart]
        reach = [np.sqrt(max(apart**2 - ((value - at) * width_px) ** 2, 0)) for at, _ in near]
        taken = [(offset - clear, offset + clear) for (_, offset), clear in zip(near, reach, strict=True)]
        ends = sorted([0.0, *(end for both in taken for end in both)], key=abs)
        free = next(end for end in ends if not any(low + 1e-6 < end < high - 1e-6 for low, high in taken))
        placed.append((name, value, float(free)))
    return placed


def _shorten(name: str) -> str:
    return name if len(name) <= 28 else name[:13] + "…" + name[-14:]
