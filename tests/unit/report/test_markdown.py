"""report.md: everything a pull request needs, and names that cannot break it."""

from typing import Any

import numpy as np
import pytest
from report_sample import build_comparison, build_sample

from brainseg_cli.report.markdown import render_markdown


def render(*patients: str, **changes: Any) -> str:
    sample = build_sample(patients, **changes) if patients else build_sample(**changes)
    return render_markdown(sample.summary, sample.patients)


def rows_of(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose header begins with `head`."""
    lines = text.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(f"| {head}"))
    end = next((stop for stop in range(at, len(lines)) if not lines[stop].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in [lines[at], *lines[at + 2 : end]]]


def test_headline_and_metrics() -> None:
    sample = build_sample()
    text = render_markdown(sample.summary, sample.patients)
    assert text.startswith("# unet-a\n\ntest split; epoch 7; threshold 0.437, chosen on val\n\n**dice_patient 0.")
    assert "finding nothing scores 0." in text
    rows = {name: cells for name, *cells in rows_of(text, "metric ")[1:]}
    assert rows.keys() == sample.summary["metrics"].keys()
    assert rows["hd95_px"] == ["123.5", "111.1 to 129.6", "68.80"]
    assert rows["nsd_1px"] == ["–", "–", "0"]
    assert "LEAKY" not in text
    assert "not a medical device" in text


def test_leaky_gates_and_notes_stand_at_the_top() -> None:
    gate = {"metric": "dice_patient", "bound": "under", "limit": 0.9, "value": 0.7, "met": False}
    text = render(leaky=True, gates=[gate], notes=["mind the split"])
    top = text[: text.index("## Metrics")]
    assert "**LEAKY" in top
    assert "- gate not met: dice\\_patient" not in top
    assert "- gate not met: dice_patient 0.7000 is under 0.90" in top
    assert "> mind the split" in top


def test_subgroups_comparison_and_the_worst_patients() -> None:
    text = render(comparison=build_comparison() | {"leaky": True})
    assert rows_of(text, "institution")[1] == ["CS", "2", "54", "0.700", "–"]
    assert "## By tumour size" not in text
    assert rows_of(text, "metric       |     a")[1] == ["dice_patient", "0.810", "0.780", "+0.030", "−0.012 to +0.071"]
    assert rows_of(text, "by patient")[1][1:5] == ["5", "3", "0", "2"]
    assert "one of the two was measured on patients it had seen" in text
    assert "## Comparison" not in render()
    worst = rows_of(text, "patient ")[1:]
    assert [row[0] for row in worst] == ["P_1", "P_2", "P_10", "P_11"]  # the fifth has no tumour


def test_the_worst_patients_are_the_worst(rng: np.random.Generator) -> None:
    sample = build_sample([f"p{at}" for at in range(9)])
    sample.patients.loc[:7, "dice"] = rng.permutation(8) / 10
    worst = rows_of(render_markdown(sample.summary, sample.patients), "patient ")[1:]
    assert [row[1] for row in worst] == ["0", "0.100", "0.200", "0.300", "0.400"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("line\nbreak", "line break"),
        ("[x](y) *z* `q`", "\\[x\\](y) \\*z\\* \\`q\\`"),
        ("P_1_b", "P_1_b"),
        ("_slanted_", "\\_slanted\\_"),
        ("a\udc80b", "a?b"),
    ],
)
def test_names_cannot_bring_markup(name: str, told: str) -> None:
    text = render(name, "last")
    assert rows_of(text, "patient ")[1][0] == told


def test_tables_line_up_as_plain_text() -> None:
    lines = render().splitlines()
    at = lines.index("## Metrics") + 2
    end = lines.index("", at)
    assert len({len(line) for line in lines[at:end]}) == 1
