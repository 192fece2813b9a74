"""report.md: the report as a comment under a pull request, and as plain text."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from brainseg_cli.metrics.gates import tell_gate
from brainseg_cli.report import wording
from brainseg_cli.report.wording import format_interval, format_number, kind_of
from brainseg_cli.types import Json

WORST_PATIENTS = 5


def render_markdown(summary: Json, patients: pd.DataFrame) -> str:
    """The headline, every metric, gates, subgroups, the comparison and the worst patients, as GitHub's Markdown.

    `summary` and `patients` as for `render_html`. Names cannot break a table or bring markup of their own.
    """
    headline = summary["headline"]
    parts = [f"# {_escape(wording.tell_what(summary))}", _escape(wording.tell_where(summary))]
    if summary["leaky"]:
        parts.append("**LEAKY: the model has seen patients that it is measured on. These numbers flatter it.**")
    parts.append(_tell_headline(summary, headline))
    parts += [f"> {_escape(note)}" for note in summary["notes"]]
    parts.append("\n".join(f"- {_escape(tell_gate(gate))}" for gate in summary["gates"]))
    parts += ["## Metrics", _list_metrics(summary)]
    for by, groups in summary["subgroups"].items():
        if groups:
            parts += [f"## By {_escape(by)}", _list_groups(by, groups)]
    parts += _list_comparison(summary)
    worst = patients[patients["reference_px"] > 0].sort_values("dice", kind="stable").head(WORST_PATIENTS)
    if len(worst):
        columns = zip(worst["patient_id"], worst["dice"], worst["reference_px"], worst["prediction_px"], strict=True)
        rows = [
            [name, format_number(dice), *(format_number(px, "count") for px in sizes)] for name, dice, *sizes in columns
        ]
        parts += ["## Worst patients", _table(["patient", "dice", "reference px", "prediction px"], rows)]
    parts.append(f"Made by brainseg {summary['brainseg_version']}. Research software, not a medical device.")
    return "\n\n".join(part for part in parts if part).encode("utf-8", "replace").decode() + "\n"


def _tell_headline(summary: Json, name: str) -> str:
    kind, counted = kind_of(name), summary["counted"]
    return (
        f"**{name} {format_number(summary['metrics'][name], kind)}**, "
        f"95 % interval {format_interval(summary['intervals'].get(name), kind)}; "
        f"finding nothing scores {format_number(summary['find_nothing'].get(name), kind)}. "
        f"{counted['patients']} patients, {counted['patients_with_tumour']} with tumour; "
        f"{counted['slices']} slices, {counted['slices_with_tumour']} with tumour."
    )


def _list_metrics(summary: Json) -> str:
    rows = []
    for name, value in summary["metrics"].items():
        kind, interval = kind_of(name), summary["intervals"].get(name)
        nothing = summary["find_nothing"].get(name)
        rows.append([name, format_number(value, kind), format_interval(interval, kind), format_number(nothing, kind)])
    table = _table(["metric", "value", "95 % interval", "finding nothing"], rows)
    return "\n\n".join(
        [
            table,
            *(
                f"{names}: {told} count as the diagonal, or 0 in an nsd."
                for names, told in wording.tell_one_empty(summary)
            ),
        ]
    )


def _list_groups(by: str, groups: Sequence[Json]) -> str:
    names = list(groups[0]["metrics"])
    rows = [
        [
            entry["group"],
            *(format_number(entry[count], "count") for count in ("patients", "slices")),
            *(format_number(entry["metrics"][name], kind_of(name)) for name in names),
        ]
        for entry in groups
    ]
    return _table([by, "patients", "slices", *names], rows)


def _list_comparison(summary: Json) -> list[str]:
    comparison = summary["comparison"]
    if not comparison:
        return []
    parts = [
        "## Comparison",
        f"a is {_escape(comparison['a'])}, b is {_escape(comparison['b'])}; differences are a - b.",
    ]
    if where := wording.tell_where(summary):
        parts.append(f"a: {where}. b: {wording.tell_where(comparison['b_about'])}.")
    if comparison["leaky"]:
        parts.append("**LEAKY: one of the two was measured on patients it had seen.**")
    rows = []
    for name, row in comparison["metrics"].items():
        values = [format_number(row[side], kind_of(name)) for side in ("a", "b")]
        difference = format_number(row["difference"], kind_of(name), signed=True)
        rows.append([name, *values, difference, format_interval(row["interval"], kind_of(name), signed=True)])
    parts.append(_table(["metric", "a", "b", "difference", "95 % interval"], rows))
    rows = [
        [
            name,
            *(str(row[count]) for count in ("pairs", "wins", "ties", "losses")),
            format_number(row["median_difference"], kind_of(name), signed=True),
            format_number(row["wilcoxon_p"]),
        ]
        for name, row in comparison["patients"].items()
    ]
    parts.append(
        _table(["by patient", "pairs", "a better", "equal", "b better", "median difference", "Wilcoxon p"], rows)
    )
    return parts


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up where it is read as text; the first is left, the others are numbers."""
    cells = [[_escape(cell) for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[at]) for row in cells)) for at in range(len(head))]
    lines = [
        "| "
        + " | ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(pairs))
        + " |"
        for pairs in ([*zip(row, widths, strict=True)] for row in cells)
    ]
    rule = "| " + " | ".join("-" * (width - 1) + ":" if at else "-" * width for at, width in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _escape(text: str) -> str:
    """`text` on one line, without anything that Markdown, a table or HTML would take for its own."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an underscore inside a word is only itself; at its edge it is emphasis
    return re.sub(r"([\\`*\[\]|~]|\b_|_\b|(?<!\w)_|_(?!\w))", r"\\\1", plain)
