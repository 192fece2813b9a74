"""Which patients belong together: by institution, by size of the tumour, by the columns of a table of theirs.

A grouping maps patient_id to the label of the patient's group; a patient without one is absent. Its patients come in
the order of their groups, so that the labels, taken as they appear, run from small to large or as a person counts.
"""

import csv
import difflib
import io
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from natsort import natsorted

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import read_bytes

Grouping = dict[str, str]
Groups = dict[str, Grouping]

MOST_CATEGORIES = 8
PATIENT_COLUMNS = ("patient_id", "patient", "subject", "case", "id")
MISSING = frozenset({"", "na", "n/a", "nan", "null"})
BARCODE = re.compile(r"[A-Za-z]+[_-]([A-Za-z0-9]{2})[_-]")


def group_by_institution(patient_ids: Iterable[str]) -> Grouping | None:
    """The second part of TCGA-style barcodes, TCGA_CS_4941_19960909 or PHANTOM-BB-0002.

    None unless every patient has such a name and there are two groups at least. None, too, where more than eight
    groups hold one patient each: that is a number, not a place. No patients: None.
    """
    found = {patient: BARCODE.match(patient) for patient in patient_ids}
    groups = {patient: match[1] for patient, match in found.items() if match}
    count = len(set(groups.values()))
    if len(groups) < len(found) or count < 2 or MOST_CATEGORIES < count == len(groups):
        return None
    return _in_order(groups)


def group_by_size(reference_px: Mapping[str, int]) -> Grouping | None:
    """Terciles of tumour size: "small (1-812 px)", "medium (...)", "large (...)", each with the range it holds.

    `reference_px` has a patient's tumour pixels, 0 for none; patients without tumour are in no group. Equal sizes
    stay together, so that there may be two groups only. None for fewer than three patients with tumour, or where
    all tumours are equal.
    """
    sizes = {patient: str(px) for patient, px in reference_px.items() if px}
    groups = _split_in_terciles(sizes, ("small", "medium", "large"), " px")
    return groups if len(sizes) >= 3 and len(set(groups.values())) > 1 else None


def read_metadata(path: Path, patient_ids: Iterable[str], by: Sequence[str] = ()) -> tuple[Groups, list[str]]:
    """Groupings of our patients by the columns of a CSV file, named as they are, and notes on what was left out.

    The first line names the columns; a comma, a semicolon or a tab parts them. The patient's column is called
    patient_id, patient, subject, case or id, in any case, else it is the first. A row belongs to the patient whose
    id equals the row's, or goes on after it with _ or - or . (row TCGA_CS_4941, patient TCGA_CS_4941_19960909);
    - and _ are alike, and a row of the whole id goes before a row of a part.

    Two to eight different values are categories, labelled as written. A column of numbers with more, or with more
    than three and than half as many as patients, becomes terciles labelled with their ranges. Other columns are left
    out and named in a note; with `by` only those are taken, and one that makes no groups is an error. An empty cell
    (or NA, N/A, NaN, null) keeps the patient out of that grouping, as a note says. No patients: no groupings.

    InputError for a file that is missing, not UTF-8, not a table, or empty, for two rows of one patient, for rows of
    none of the patients, and for a column of `by` that is not there or makes no groups.
    """
    patients = list(patient_ids)
    names, rows = _read_table(path)
    key = next(
        (names.index(n) for wanted in PATIENT_COLUMNS for n in names if n.lower().replace(" ", "_") == wanted), 0
    )
    columns = {name: at for at, name in enumerate(names) if name and at != key}
    if not columns:
        raise InputError("has no column beside the patients'", where=path)
    for name in by:
        _check_column(path, name, columns)
    row_of = _match_rows(path, [row[key] for row in rows], patients)
    if patients and not row_of:
        raise InputError(
            f"none of its rows is one of the {len(patients)} patients'",
            where=path,
            hint=f"column {names[key]!r} begins with {rows[0][key]!r}, a patient is {patients[0]!r}",
        )
    groups: Groups = {}
    unfit: list[str] = []
    incomplete: list[str] = []
    for name in dict.fromkeys(by) or columns:
        written = {patient: rows[at][columns[name]] for patient, at in row_of.items()}
        cells = {patient: cell for patient, cell in written.items() if cell.lower() not in MISSING}
        grouping = _group_by_value(cells)
        if grouping is None:
            unfit.append(name)
            continue
        groups[name] = grouping
        if missing := len(row_of) - len(cells):
            incomplete.append(f"{name} {missing}")
    if by and unfit and patients:
        raise InputError(
            f"its column {unfit[0]!r} makes no groups of these patients",
            where=path,
            hint=f"two to {MOST_CATEGORIES} different values are needed, or numbers",
        )
    notes = []
    if absent := len(patients) - len(row_of):
        notes.append(f"{path.name}: {absent} of {len(patients)} patients have no row")
    if incomplete:
        notes.append(f"{path.name}: patients left out for want of a value: {', '.join(incomplete)}")
    if unfit and patients:
        notes.append(
            f"{path.name}: columns with one value, or with more than {MOST_CATEGORIES} that are no numbers, "
            f"make no groups: {', '.join(unfit)}"
        )
    return groups, notes


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The column names, and rows of as many cells; stripped of blanks around, rows of empty cells left out."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
        head = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except UnicodeDecodeError:
        raise InputError("is not a table in UTF-8", where=path) from None
    except csv.Error as error:
        raise InputError(f"cannot be read as CSV: {error}", where=path) from None
    lines = [(number, line) for number, line in lines if any(line)]
    if len(lines) < 2:
        raise InputError("is empty" if not lines else "has no row below its first line", where=path)
    names = lines[0][1]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"has two columns called {twice[0]!r}", where=path)
    for number, line in lines[1:]:
        if any(line[len(names) :]):
            raise InputError(f"line {number} has {len(line)} cells, the first {len(names)}", where=path)
    return names, [(line + [""] * len(names))[: len(names)] for _, line in lines[1:]]


def _check_column(path: Path, name: str, columns: Collection[str]) -> None:
    if name not in columns:
        near = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns) or 'none beside the patients'}"
        raise InputError(f"has no column {name!r} to group by", where=path, hint=hint)


def _match_rows(path: Path, ids: Sequence[str], patients: Sequence[str]) -> dict[str, int]:
    """Each patient's row, by its place; a patient without one is absent."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(ids):
        places.setdefault(name.replace("-", "_"), []).append(at)
    row_of: dict[str, int] = {}
    for patient in patients:
        whole = patient.replace("-", "_")
        parts = [whole[:at] for at, letter in enumerate(whole) if letter in "_." and at]
        fitting = places.get(whole) or [at for part in parts for at in places.get(part, [])]
        if len(fitting) > 1:
            shown = " and ".join(repr(ids[at]) for at in fitting[:2])
            raise InputError(f"has {len(fitting)} rows for patient {patient}: {shown}", where=path)
        if fitting:
            row_of[patient] = fitting[0]
    return row_of


def _group_by_value(cells: Mapping[str, str]) -> Grouping | None:
    """Categories or terciles of the cells, by patient; None where they make no groups."""
    different = len(set(cells.values()))
    if different < 2:
        return None
    # a category is something that patients share: numbers that hardly any two have in common are a scale
    if different > MOST_CATEGORIES or 3 < different > len(cells) / 2:
        if all(_is_number(cell) for cell in cells.values()):
            return _split_in_terciles(cells, ("low", "middle", "high"))
        if different > MOST_CATEGORIES:
            return None
    return _in_order(dict(cells))


def _split_in_terciles(cells: Mapping[str, str], names: tuple[str, str, str], unit: str = "") -> Grouping:
    """Numbers as written to "low (1-20)", "middle (21-30)", "high (31-50)", lowest first.

    A number's third is that of the mean rank of its equals, so that equals stay together; where the middle or
    an end stays empty, the two that are left are called low and high.
    """
    ordered = sorted(cells, key=lambda patient: float(cells[patient]))
    numbers = [float(cells[patient]) for patient in ordered]
    thirds: dict[int, list[str]] = {}
    for patient, number in zip(ordered, numbers, strict=True):
        # the ranks of equals run from first to last: first + last is twice their mean
        first, last = bisect_left(numbers, number), bisect_right(numbers, number) - 1
        thirds.setdefault(3 * (first + last) // (2 * len(numbers)), []).append(patient)
    groups: Grouping = {}
    for name, members in zip(names if len(thirds) == 3 else names[::2], thirds.values(), strict=False):
        label = f"{name} ({_show_range(cells[members[0]], cells[members[-1]])}{unit})"
        groups |= dict.fromkeys(members, label)
    return groups


def _show_range(low: str, high: str) -> str:
    if float(low) == float(high):
        return low
    return f"{low} to {high}" if low.startswith("-") else f"{low}-{high}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _in_order(groups: Grouping) -> Grouping:
    return {patient: groups[patient] for patient in natsorted(groups, key=groups.__getitem__)}
