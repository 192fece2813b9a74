"""The tables of a page: whole numbers in, whole numbers out."""

import json

import numpy as np
import pandas as pd
from report_sample import build_sample

from brainseg_cli.report.tables import build_table


def test_every_shown_number_is_the_tables_own() -> None:
    sample = build_sample()
    for table in (sample.slices, sample.patients):
        built = build_table(table)
        names = [column.name for column in built.columns]
        assert {"patient_id", "dice", "hd95_px", "reference_px", "prediction_px", "fn", "fp"} <= set(names)
        assert names.index("patient_id") == 0
        for name in set(names) & set(table.columns) - {"patient_id", "image"}:
            values = [np.nan if row[names.index(name)] is None else row[names.index(name)] for row in built.rows]
            np.testing.assert_array_equal(values, table[name].to_numpy(float))


def test_undefined_is_null_and_json_takes_it() -> None:
    table = pd.DataFrame(
        {
            "image": ["a", "b"],
            "patient_id": ["p", "p"],
            "slice_index": pd.array([3, pd.NA], dtype="Int64"),
            "tp": [1, 0],
            "fp": [2, 0],
            "fn": [4, 0],
            "dice": [0.25, np.nan],
            "soft_reference": [1.0, 2.0],
        }
    )
    built = build_table(table)
    assert [column.name for column in built.columns] == [
        *("patient_id", "image", "slice_index", "dice", "reference_px", "prediction_px", "fn", "fp")
    ]
    assert built.rows == [["p", "a", 3, 0.25, 5, 3, 4, 2], ["p", "b", None, None, 0, 0, 0, 0]]
    assert json.loads(json.dumps(built.to_json(), allow_nan=False))["rows"][1][3] is None


def test_rows_know_their_picture() -> None:
    sample = build_sample()
    images = [shown.image for shown in sample.pictures]
    pictures = build_table(sample.slices, images).pictures
    assert {sample.slices["image"][row]: at for row, at in pictures.items()} == {
        image: at for at, image in enumerate(images)
    }
    assert build_table(sample.patients).pictures == {}


def test_a_table_without_rows_keeps_its_columns() -> None:
    sample = build_sample()
    built = build_table(sample.patients.iloc[:0])
    assert built.rows == []
    assert built.columns == build_table(sample.patients).columns
