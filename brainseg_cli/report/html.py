"""report.html: one file with everything in it, that asks the network for nothing and runs only its own script."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from brainseg_cli.metrics.gates import tell_gate
from brainseg_cli.metrics.terms import LOWER_IS_BETTER
from brainseg_cli.report import charts, wording
from brainseg_cli.report.pictures import BEST, Picture, draw_picture
from brainseg_cli.report.tables import build_table
from brainseg_cli.types import Json

UNMATCHED_SHOWN = 50
TOLD_ELSEWHERE = ("headline", "schema_version", "spacing_mm", "unit")


def render_html(summary: Json, slices: pd.DataFrame, patients: pd.DataFrame, pictures: Sequence[Picture]) -> str:
    """The whole page as text.

    `summary` is what summary.json holds (schema version 2), `slices` and `patients` the tables of slices.csv and
    patients.csv with NaN or NA where a number is not defined, `pictures` the gallery in its order, which may be
    empty. Every number shown carries the whole number with it, and each metric its name, in data-metric and
    data-value. Names that no text can hold (lone surrogates) lose the character. InputError where a picture and its
    masks differ in size.
    """
    style, script = _read("report.css"), _read("report.js")
    page = _environment().get_template("report.html.jinja")
    text = page.render(
        summary=summary,
        what=wording.tell_what(summary),
        where=wording.tell_where(summary),
        style=Markup(style),
        script=Markup(script),
        policy=_write_policy(style, script),
        headline=_describe_metric(summary, summary["headline"]),
        families={
            family: [_describe_metric(summary, name) for name in names]
            for family, names in wording.group_metrics(summary["metrics"]).items()
        },
        gates=[(gate["met"], tell_gate(gate)) for gate in summary["gates"]],
        lesions=wording.tell_lesions(summary),
        left_out=wording.tell_left_out(summary),
        one_empty=wording.tell_one_empty(summary),
        charts=_draw_charts(summary, patients),
        gallery=_draw_gallery(pictures),
        tables={
            "patients": build_table(patients),
            "slices": build_table(slices, [shown.image for shown in pictures]),
        },
        origin=_tell_origin(summary),
        unmatched_shown=UNMATCHED_SHOWN,
    )
    return text.encode("utf-8", "replace").decode()


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("brainseg_cli.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "number": wording.format_number,
        "interval": wording.format_interval,
        "setting": wording.format_value,
        "kind": wording.kind_of,
        "where": wording.tell_where,
        "count": partial(wording.format_number, kind="count"),
    }
    return environment


@lru_cache
def _read(name: str) -> str:
    return resources.files("brainseg_cli.report").joinpath("page", name).read_text(encoding="utf-8")


def _write_policy(style: str, script: str) -> str:
    """A content security policy that lets through this style, this script and the pictures inside the page."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _describe_metric(summary: Json, name: str) -> dict[str, Any]:
    """One row of the table of metrics; a number the summary does not have is None."""
    kind = wording.kind_of(name)
    value, nothing = summary["metrics"][name], summary["find_nothing"].get(name)
    interval = summary["intervals"].get(name)
    return {
        "name": name,
        "kind": kind,
        "value": value,
        "interval": interval,
        "nothing": nothing,
        "at_half": (summary["at_half"] or {}).get(name),
        "definition": summary["definitions"][name],
        "lower": name.startswith(LOWER_IS_BETTER),
        "empty": wording.tell_empty(summary["one_empty"].get(name)),
        "whisker": charts.draw_whisker(value, interval, nothing) if kind == "share" else "",
    }


def _draw_charts(summary: Json, patients: pd.DataFrame) -> dict[str, Markup | None]:
    """The charts that the summary has the numbers for; None for the others."""
    headline = summary["headline"]
    with_tumour = patients[patients["reference_px"] > 0]
    values = dict(zip(with_tumour["patient_id"].astype(str), with_tumour["dice"].astype(float), strict=True))
    drawn: dict[str, Markup | None] = {"reliability": None, "sweep": None, "differences": None}
    drawn["patients"] = charts.draw_patients(
        {name: value for name, value in values.items() if not math.isnan(value)},
        mean=summary["metrics"][headline],
        interval=summary["intervals"].get(headline),
        metric="dice",
    )
    if summary["calibration"]:
        drawn["reliability"] = charts.draw_reliability(summary["calibration"]["bins"])
    if summary["threshold_sweep"]:
        drawn["sweep"] = charts.draw_sweep(summary["threshold_sweep"], chosen=summary["threshold"])
    if (comparison := summary["comparison"]) and comparison["by_patient"]:
        of_headline = comparison["metrics"].get(headline, {})
        drawn["differences"] = charts.draw_differences(
            comparison["by_patient"],
            a=comparison["a"],
            b=comparison["b"],
            mean=of_headline.get("difference"),
            interval=of_headline.get("interval"),
        )
    return drawn


def _draw_gallery(pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
    """Title to pictures, each with its number among all of them; no picture, no title."""
    groups: dict[str, list[dict[str, Any]]] = {"Worst slices": [], "Best slices": []}
    for number, shown in enumerate(pictures):
        group = groups["Best slices" if shown.kind == BEST else "Worst slices"]
        group.append({"number": number, "about": shown, "svg": draw_picture(shown)})
    return {title: group for title, group in groups.items() if group}


def _tell_origin(summary: Json) -> Mapping[str, Any]:
    """What the numbers came from: everything in the summary that is one value and no number of the result."""
    return {
        name.replace("_", " "): value
        for name, value in summary.items()
        if name not in TOLD_ELSEWHERE and (value is None or isinstance(value, str | int | float))
    }
