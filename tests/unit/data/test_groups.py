"""Groups of patients: by their names, by their tumours, and by a table that somebody else wrote."""

from pathlib import Path

import pytest

from brainseg_cli.data.groups import group_by_institution, group_by_size, read_metadata
from brainseg_cli.errors import InputError

PATIENTS = ["TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405", "TCGA_HT_7473_19970826"]


@pytest.fixture
def table(tmp_path):
    """`table("id,sex", "a,M")`: the path of a CSV of these lines."""

    def write(*lines: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "clinical.csv"
        path.write_bytes("\n".join([*lines, ""]).encode(encoding))
        return path

    return write


def test_institutions_are_the_second_part_of_a_barcode():
    assert group_by_institution(PATIENTS) == {PATIENTS[0]: "CS", PATIENTS[1]: "DU", PATIENTS[2]: "HT"}
    assert group_by_institution(["PHANTOM_BB_0002", "TCGA-02-0001"]) == {"PHANTOM_BB_0002": "BB", "TCGA-02-0001": "02"}
    assert list(group_by_institution(["X_DU_1", "X_CS_2", "X_DU_3"])) == ["X_CS_2", "X_DU_1", "X_DU_3"]


@pytest.mark.parametrize(
    "patients",
    [
        [],
        ["TCGA_CS_4941"],  # one group
        ["TCGA_CS_4941", "TCGA_CS_4942"],
        ["TCGA_CS_4941", "patient7"],  # not every name
        ["TCGA_CSX_1", "TCGA_DUX_2"],
        ["case_01", "case_02"],  # nothing after it
        [f"case_{number:02}_flair" for number in range(9)],  # a number, not a place
    ],
)
def test_names_that_tell_no_institution(patients):
    assert group_by_institution(patients) is None


def test_sizes_are_terciles_of_patients_with_tumour():
    sizes = {"f": 60, "none": 0, "a": 1, "e": 50, "c": 30, "b": 20, "d": 40}
    found = group_by_size(sizes)
    small, medium, large = "small (1-20 px)", "medium (30-40 px)", "large (50-60 px)"
    assert found == {"a": small, "b": small, "c": medium, "d": medium, "e": large, "f": large}
    assert list(dict.fromkeys(found.values())) == [small, medium, large]


def test_seven_patients_are_three_two_two():
    found = group_by_size({str(number): number for number in range(1, 8)})
    assert list(found.values()) == ["small (1-3 px)"] * 3 + ["medium (4-5 px)"] * 2 + ["large (6-7 px)"] * 2


def test_equal_sizes_stay_together():
    assert group_by_size({"a": 5, "b": 7, "c": 7, "d": 7, "e": 7}) == {
        "a": "small (5 px)",
        **dict.fromkeys("bcde", "large (7 px)"),
    }
    assert group_by_size({"a": 7, "b": 7, "c": 7, "d": 9}) == {
        **dict.fromkeys("abc", "small (7 px)"),
        "d": "large (9 px)",
    }


@pytest.mark.parametrize("sizes", [{}, {"a": 3, "b": 9}, {"a": 3, "b": 9, "c": 0}, {"a": 4, "b": 4, "c": 4}])
def test_too_few_or_equal_tumours_make_no_sizes(sizes):
    assert group_by_size(sizes) is None


def test_rows_belong_to_patients_whose_name_goes_on(table):
    path = table("Patient,gender,site", "TCGA-CS-4941,2,A", "TCGA_DU_5849_19950405,1,A", "TCGA_HT_7473,2.0,B", "Z,9,B")
    groups, notes = read_metadata(path, PATIENTS)
    first, second, third = PATIENTS
    assert groups == {"gender": {second: "1", first: "2", third: "2.0"}, "site": {first: "A", second: "A", third: "B"}}
    assert notes == []


def test_a_name_goes_on_only_after_a_mark(table):
    path = table("id,x", "case1,a", "case2,b")
    groups, notes = read_metadata(path, ["case1", "case2.7", "case12", "case-2"])
    assert groups == {"x": {"case1": "a", "case2.7": "b"}}
    assert notes == ["clinical.csv: 2 of 4 patients have no row"]


def test_the_whole_id_goes_before_a_part_and_two_scans_share_a_row(table):
    path = table("id,x", "p,a", "p_1,b")
    assert read_metadata(path, ["p", "p_1", "p_2"])[0] == {"x": {"p": "a", "p_2": "a", "p_1": "b"}}


@pytest.mark.parametrize(
    "header, column",
    [
        ("x,Patient_ID,id", 1),
        ("x,PATIENT,subject", 1),
        ("id,case,Subject", 2),
        ("x,Patient ID,y", 1),
        ("who,x,y", 0),
        (",x,y", 0),
    ],
)
def test_the_patients_column_is_found_by_name_else_it_is_the_first(table, header, column):
    cells = [["v", "v", "v"], ["w", "w", "w"]]
    cells[0][column], cells[1][column] = "a", "b"
    groups, _ = read_metadata(table(header, *map(",".join, cells)), ["a", "b"])
    names = header.split(",")
    assert groups == {name: {"a": "v", "b": "w"} for at, name in enumerate(names) if at != column}


def test_what_becomes_of_each_kind_of_column(table):
    patients = [f"p{number}" for number in range(1, 11)]
    rows = [
        f"{name},{'MF'[at % 2]},{at % 5},{10 * at - 30},{name}x,same,{'' if at == 4 else 'NA' if at == 5 else at % 2}"
        for at, name in enumerate(patients)
    ]
    groups, notes = read_metadata(table("patient,sex,grade,age,comment,one,dead", *rows), patients)
    assert list(groups) == ["sex", "grade", "age", "dead"]
    assert groups["sex"] == {name: "MF"[at % 2] for at, name in enumerate(patients)}
    assert sorted(set(groups["grade"].values())) == list("01234")
    assert list(groups["age"].values()) == ["low (-30 to 0)"] * 4 + ["middle (10-30)"] * 3 + ["high (40-60)"] * 3
    assert groups["dead"].keys() == set(patients) - {"p5", "p6"}
    assert notes == [
        "clinical.csv: patients left out for want of a value: dead 2",
        "clinical.csv: columns with one value, or with more than 8 that are no numbers, make no groups: comment, one",
    ]


def test_few_patients_of_many_ages_are_terciles_too(table):
    rows = ["a,30", "b,9", "c,41.50", "d,100"]
    assert read_metadata(table("id,age", *rows), list("abcd"))[0]["age"] == {
        "b": "low (9-30)",
        "a": "low (9-30)",
        "c": "middle (41.50)",
        "d": "high (100)",
    }
    assert read_metadata(table("id,age", *rows), list("abc"))[0]["age"] == {"b": "9", "a": "30", "c": "41.50"}


def test_only_the_columns_asked_for(table):
    path = table("id,sex,dead,note", "a,M,0,x", "b,F,1,x")
    groups, notes = read_metadata(path, ["a", "b"], ["dead", "sex", "dead"])
    assert list(groups) == ["dead", "sex"] and notes == []
    with pytest.raises(InputError, match=r"no column 'sexx' to group by \(did you mean 'sex'\?\)"):
        read_metadata(path, ["a", "b"], ["sexx"])
    with pytest.raises(InputError, match=r"no column 'qqqq' to group by \(it has sex, dead, note\)"):
        read_metadata(path, ["a", "b"], ["qqqq"])
    with pytest.raises(InputError, match="its column 'note' makes no groups"):
        read_metadata(path, ["a", "b"], ["sex", "note"])
    with pytest.raises(InputError, match="no column 'id'"):
        read_metadata(path, ["a", "b"], ["id"])


def test_too_many_categories_make_no_groups(table):
    names = [f"p{number}" for number in range(9)]
    path = table("id,town", *(f"{name},town {name}" for name in names))
    assert read_metadata(path, names[:8])[0]["town"]["p3"] == "town p3"
    with pytest.raises(InputError, match=r"'town' makes no groups.*two to 8"):
        read_metadata(path, names, ["town"])


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_other_marks_a_byte_order_mark_and_quotes(table, mark):
    path = table(f"site{mark}id", f'"Bern{mark} CH"{mark}a', f" Graz {mark} b ", "", mark, encoding="utf-8-sig")
    assert read_metadata(path, ["a", "b"])[0] == {"site": {"a": f"Bern{mark} CH", "b": "Graz"}}


def test_no_patients_no_groups(table):
    assert read_metadata(table("id,sex", "a,M"), []) == ({}, [])


@pytest.mark.parametrize(
    "lines, said",
    [
        ([], "is empty"),
        (["id,sex"], "has no row below its first line"),
        (["id", "a"], "has no column beside the patients'"),
        (["id,sex,sex", "a,M,M"], "has two columns called 'sex'"),
        (["id,sex", "a,M,7"], "line 2 has 3 cells, the first 2"),
        (["id,sex", 'a,"M'], "cannot be read as CSV"),
        (["id,sex", "a,M", "a,M"], "has 2 rows for patient a: 'a' and 'a'"),
        (["id,sex", "b-1,M", "b_1,F"], "has 2 rows for patient b_1_x: 'b-1' and 'b_1'"),
        (["id,sex", "b,M", "b_1,F"], "has 2 rows for patient b_1_x: 'b' and 'b_1'"),
        (
            ["id,sex", "q,M"],
            r"none of its rows is one of the 2 patients' \(column 'id' begins with 'q', a patient is 'a'\)",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(table, lines, said):
    path = table(*lines)
    with pytest.raises(InputError, match=said) as raised:
        read_metadata(path, ["a", "b_1_x"])
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_short_rows_lack_their_last_cells(table):
    groups, notes = read_metadata(table("id,sex,dead", "a,M,1", "b,F,0", "c,F"), list("abc"))
    assert groups["dead"] == {"b": "0", "a": "1"} and notes == [
        "clinical.csv: patients left out for want of a value: dead 1"
    ]


def test_a_file_that_is_not_there_or_no_text(table, tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_metadata(tmp_path / "none.csv", PATIENTS)
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_metadata(tmp_path, PATIENTS)
    with pytest.raises(InputError, match="UTF-8"):
        read_metadata(table("id,größe", "a,1", encoding="latin-1"), PATIENTS)


def test_numbers_that_few_patients_share_are_a_scale(tmp_path: Path) -> None:
    ages = {"a": 20, "b": 29, "c": 33, "d": 51, "e": 58, "f": 58, "g": 66}
    path = tmp_path / "ages.csv"
    path.write_text("\n".join(["patient,age", *(f"{name},{age}" for name, age in ages.items())]) + "\n")
    # six values of seven patients; mean ranks 0, 1, 2 | 3, 4.5, 4.5 | 6, parted at 7/3 and 14/3
    groups = read_metadata(path, ages)[0]["age"]
    assert groups == dict.fromkeys("abc", "low (20-33)") | dict.fromkeys("def", "middle (51-58)") | {"g": "high (66)"}
