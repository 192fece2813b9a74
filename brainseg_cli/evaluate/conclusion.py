"""What was measured, concluded: summary, groups, comparison, gates, and the report folder."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg_cli import __version__
from brainseg_cli.data.groups import group_by_institution, group_by_size, read_metadata
from brainseg_cli.evaluate.side import Side
from brainseg_cli.io.atomic import check_absent, encode_json, encode_text, write_together
from brainseg_cli.metrics.aggregate import BATCH_SIZE, HEADLINE
from brainseg_cli.metrics.comparison import compare, summarise_groups
from brainseg_cli.metrics.gates import Gate, check_gate
from brainseg_cli.metrics.summary import summarise_measures
from brainseg_cli.report.html import render_html
from brainseg_cli.report.markdown import render_markdown
from brainseg_cli.report.pictures import Picture, choose_pictures
from brainseg_cli.types import Json

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Evaluation:
    """`summary` is what summary.json holds, `side` the tables behind it."""

    summary: Json
    side: Side


def conclude(
    side: Side,
    *,
    against: Side | None = None,
    metadata: Path | None = None,
    by: Sequence[str] = (),
    gates: Sequence[Gate] = (),
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Everything that summary.json says of a side; `against` another one that measures the same slices.

    Groups are the institution (where the names tell it), the tumour's size, and columns of the table `metadata`:
    those in `by`, or all that make groups. InputError for a table that cannot be used, for sides that measure
    different slices, and for measures without slices; gates that are not met are no error.
    """
    measures, notes = side.measures, list(side.notes)
    patients = measures.patients["patient_id"].tolist()
    reference_px = dict(zip(patients, measures.patients["reference_px"].tolist(), strict=True))
    groupings = {"institution": group_by_institution(patients), "tumour size": group_by_size(reference_px)}
    known = {name: groups for name, groups in groupings.items() if groups}
    if metadata is not None:
        columns, said = read_metadata(metadata, patients, by)
        known |= {f"{name} ({metadata.name})" if name in known else name: groups for name, groups in columns.items()}
        notes += said
    comparison = None
    leaky = side.about["leaky"]
    if against is not None:
        names = {"a": side.name, "b": against.name, "leaky": leaky or against.about["leaky"]}
        comparison = names | {"b_about": against.about} | compare(measures, against.measures, known)
        notes += [f"{against.name}: {note}" for note in against.notes]
    measured = summarise_measures(measures, batch_size=batch_size)
    if not measured["counted"]["patients_with_tumour"]:
        notes.append("no reference has tumour: dice_patient, the headline, is not defined")
    summary = {
        "schema_version": SCHEMA_VERSION,
        "brainseg_version": __version__,
        "headline": HEADLINE,
        "unmatched": {"references": [], "predictions": []},
        **side.about,
        **measured,
        "subgroups": summarise_groups(measures, known),
        "comparison": comparison,
        "gates": [check_gate(gate, measured["metrics"]) for gate in gates],
        "notes": notes,
    }
    return Evaluation(summary, side)


def write_report(evaluation: Evaluation, out: Path, *, overwrite: bool = False) -> None:
    """report.html, report.md, slices.csv, patients.csv, lesions.csv and, last, summary.json into the folder `out`.

    OutputExistsError unless `overwrite`; then these files are replaced, and whatever else lies there stays. What cannot
    all be written replaces nothing.
    """
    check_absent(out, overwrite=overwrite)
    summary, measures = evaluation.summary, evaluation.side.measures
    rows = measures.slices.set_index("image").to_dict("index")
    pictures = [_picture(evaluation.side, kind, image, rows[image]) for kind, image in choose_pictures(measures.slices)]
    texts = {
        "report.html": render_html(summary, measures.slices, measures.patients, pictures),
        "report.md": render_markdown(summary, measures.patients),
        "slices.csv": measures.slices.to_csv(index=False),
        "patients.csv": measures.patients.to_csv(index=False),
        "lesions.csv": measures.lesions.to_csv(index=False),
    }
    # summary.json first: who is named first is the last to be there
    encoded = {"summary.json": encode_json(summary)} | {name: encode_text(text) for name, text in texts.items()}
    write_together(out, encoded)


def _picture(side: Side, kind: str, image: str, row: dict[Hashable, Any]) -> Picture:
    picture, reference, prediction = side.look(image)
    return Picture(
        kind=kind,
        image=image,
        patient_id=str(row["patient_id"]),
        slice_index=None if pd.isna(row["slice_index"]) else int(row["slice_index"]),
        dice=None if pd.isna(row["dice"]) else float(row["dice"]),
        picture=picture,
        reference=reference,
        prediction=prediction,
    )
