"""The charts: what is drawn stands where its number says, and says what it is."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from report_sample import build_comparison, build_sample

from brainseg_cli.report import charts
from brainseg_cli.report.charts import LEFT, RIGHT
from brainseg_cli.report.svg import choose_ticks

SVG = "{http://www.w3.org/2000/svg}"


def parse(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)


def place(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "nan"))


def titles(root: ElementTree.Element) -> list[str]:
    return [title.text or "" for title in root.iter(f"{SVG}title")]


def texts(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_every_patient_is_a_dot_at_its_value_and_none_covers_another(rng: np.random.Generator) -> None:
    values = {f"P_{at}": float(value) for at, value in enumerate(rng.beta(8, 2, 120))}
    root = parse(charts.draw_patients(values, mean=0.8, interval=[0.75, 0.84], metric="dice"))
    dots = {(dot[0].text or "").partition(":")[0]: dot for dot in root.iter(f"{SVG}circle")}
    assert dots.keys() == values.keys()
    for name, value in values.items():
        assert place(dots[name], "cx") == pytest.approx(LEFT + value * (RIGHT - LEFT), abs=0.01)
    centres = np.array([(place(dot, "cx"), place(dot, "cy")) for dot in dots.values()])
    apart = np.hypot(*(centres[:, None] - centres[None]).T)
    assert apart[~np.eye(len(dots), dtype=bool)].min() >= 2 * charts.DOT_PX
    height = float(root.get("viewBox", "").split()[3])
    assert centres[:, 1].min() > 0 and centres[:, 1].max() < height - 48


def test_many_patients_are_a_histogram() -> None:
    values = {str(at): 0.81 if at < 300 else 1.0 for at in range(400)}
    root = parse(charts.draw_patients(values, mean=0.86, interval=None, metric="dice"))
    assert not list(root.iter(f"{SVG}circle"))
    assert titles(root) == ["300 patients from 0.8 to 0.825", "100 patients from 0.975 to 1"]
    heights = [place(bar, "height") for bar in root.iter(f"{SVG}rect")]
    assert heights[0] == pytest.approx(3 * heights[1])


def test_mean_and_interval_are_marked() -> None:
    root = parse(charts.draw_patients({"a": 0.5}, mean=0.25, interval=[0.2, 0.4], metric="dice"))
    (band,) = root.iter(f"{SVG}rect")
    assert place(band, "x") == pytest.approx(LEFT + 0.2 * (RIGHT - LEFT))
    assert place(band, "width") == pytest.approx(0.2 * (RIGHT - LEFT))
    assert "mean 0.250" in texts(root)


def test_no_patient_is_an_empty_frame() -> None:
    root = parse(charts.draw_patients({}, mean=None, interval=None, metric="dice"))
    assert titles(root) == []
    assert "dice, by patient" in texts(root)


def test_reliability_leaves_out_empty_bins() -> None:
    bins = build_sample().summary["calibration"]["bins"]
    root = parse(charts.draw_reliability(bins))
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == len(list(root.iter(f"{SVG}rect"))) == 9
    assert titles(root)[0] == "0 to 0.1: 1000000 pixels, mean probability 0.050, tumour 0.020"
    assert place(dots[0], "cx") == pytest.approx(LEFT + 0.05 * (RIGHT - LEFT))
    heights = [place(bar, "height") for bar in root.iter(f"{SVG}rect")]
    assert heights == sorted(heights, reverse=True)
    empty = [entry | {"pixels": 0, "mean_prob": None, "tumour_share": None} for entry in bins]
    assert titles(parse(charts.draw_reliability(empty))) == []


@pytest.mark.parametrize(
    ("chosen", "marks"), [(0.437, {"0.5", "in use: 0.437"}), (0.5, {"in use: 0.5"}), (None, {"0.5"})]
)
def test_the_threshold_in_use_is_marked_beside_a_half(chosen: float | None, marks: set[str]) -> None:
    points = build_sample().summary["threshold_sweep"]
    root = parse(charts.draw_sweep(points, chosen=chosen))
    assert {text for text in texts(root) if text == "0.5" or text.startswith("in use")} == marks
    dots = [(dot[0].text or "", dot) for dot in root.iter(f"{SVG}circle")]
    assert len(dots) == 2 * len(points)
    best = min((dot for told, dot in dots if "dice_patient" in told), key=lambda dot: place(dot, "cy"))
    assert (best[0].text or "").startswith("threshold 0.45:")
    lines = [line for line in root.iter(f"{SVG}line") if line.get("x1") == line.get("x2") and line.get("y1") == "34"]
    assert len(lines) == len(marks)


def test_a_threshold_without_a_value_is_passed_over() -> None:
    points: list[dict[str, Any]] = [{"threshold": 0.3, "dice_patient": None, "dice_pooled": 0.5}]
    assert titles(parse(charts.draw_sweep(points, chosen=0.3))) == ["threshold 0.3: dice_pooled 0.500"]


def test_differences_rise_and_fall_from_zero() -> None:
    patients = build_comparison()["by_patient"]
    root = parse(charts.draw_differences(patients, a="a", b="b", mean=0.03, interval=[-0.01, 0.07]))
    band, *bars = root.iter(f"{SVG}rect")
    assert band.get("fill") == charts.BAND
    assert len(bars) == len(patients)
    assert (bars[0][0].text or "") == "P_1: −0.040 (0.800 against 0.840)"
    zero = place(bars[0], "y")  # a loss hangs from the line, a win stands on it
    assert place(bars[-1], "y") + place(bars[-1], "height") == pytest.approx(zero, abs=0.01)
    assert bars[0].get("fill") == charts.SECOND != bars[-1].get("fill")
    assert parse(charts.draw_differences([], a="a", b="b", mean=None, interval=None)) is not None


def test_names_cannot_break_out_of_a_chart() -> None:
    name = "</title><script>alert('1')</script>&"
    drawn = charts.draw_patients({name: 0.5}, mean=None, interval=None, metric=name)
    assert titles(parse(drawn)) == [f"{name}: 0.500"]
    assert "<script" not in drawn
    patient = {"patient_id": name, "a": 0.1, "b": 0.2, "difference": -0.1}
    assert "<script" not in charts.draw_differences([patient], a=name, b=name, mean=None, interval=None)


def test_charts_have_colours_without_a_page() -> None:
    for colour in (charts.FIRST, charts.SECOND, charts.BAND):
        assert colour.startswith("var(--")
        assert ", #" in colour


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.76, 0.88, [0.76, 0.78, 0.8, 0.82, 0.84, 0.86, 0.88]),
        (0, 8, [0, 2, 4, 6, 8]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert choose_ticks(low, high) == pytest.approx(ticks)
