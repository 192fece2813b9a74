"""Whom the built-in models were trained on, so that no figure on those patients is taken for a measure of them."""

from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from brainseg_cli.io.embedded import read_about
from brainseg_cli.models.built_in import FOLDER, list_built_in
from brainseg_cli.models.locate import open_bundle


def list_patients(name: str) -> frozenset[str]:
    """Whom a built-in model was trained on, by patient_id: its patients.txt."""
    return frozenset((FOLDER / name / "patients.txt").read_text(encoding="utf-8").split())


def find_trained_on(hashes: Collection[object]) -> dict[str, frozenset[str]]:
    """The built-in models among those of these hashes (`Bundle.sha256`), by name, and whom each was trained on."""
    return {name: list_patients(name) for name in list_built_in() if _hash(name) in hashes}


def find_patient(name: str, patients: Collection[str]) -> str | None:
    """Which of `patients` a name means: `TCGA_CS_4942_19970222`, or that with `_10` for a slice."""
    return next((who for who in (name, name.rpartition("_")[0]) if who in patients), None)


def find_seen(masks: Iterable[tuple[str, Path]]) -> dict[str, set[str]]:
    """Of patients, each with a mask of theirs, those that the mask's built-in model was trained on, by its name.

    The mask's own note says what made it; one without a note says nothing. Only masks of patients whose names a
    built-in model knows are opened.
    """
    everybody = frozenset[str]().union(*map(list_patients, list_built_in()))
    seen: dict[str, set[str]] = {}
    for patient_id, path in masks:  # in a flat folder each file is called a patient
        who = find_patient(patient_id, everybody)
        if who is None:
            continue
        provenance = (read_about(path) or {}).get("provenance")
        hashes = provenance.get("model_sha256") if isinstance(provenance, dict) else None
        for name, patients in find_trained_on(hashes if isinstance(hashes, list) else []).items():
            if who in patients:
                seen.setdefault(name, set()).add(who)
    return seen


@cache
def _hash(name: str) -> str:
    return open_bundle(FOLDER / name, verify=False).sha256
