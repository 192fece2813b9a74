import json

import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.comparison import compare, summarise_groups
from brainseg_cli.metrics.measure import PIXELS, MaskPair, Ruler, collect, measure_patient
from brainseg_cli.metrics.summary import build_terms, summarise_measures

IN_MM = Ruler(spacing_mm=(1, 1, 1))

# Rows of 12 pixels, a slice and a patient each; diagonal sqrt(145). '#' is tumour.
REFERENCE = {
    "p": "####........",
    "q": "####........",
    "r": "##..........",
    "s": "............",
    "t": "............",
}
A = {
    "p": "####........",  # all of it: dice 1, hd95 0
    "q": "##..........",  # 2 of 4: dice 4/6
    "r": "............",  # missed: dice 0, hd95 the diagonal
    "s": "............",
    "t": "#...........",  # a false alarm where there is nothing
}
B = {
    "p": "##..........",  # dice 4/6
    "q": "##..........",  # as A
    "r": ".##.........",  # dice 2/4
    "s": "............",
    "t": "............",
}
# hd95 of 2 of 4: from the reference 0 0 1 2, place 0.95 x 3 = 2.85, so 1.85; of .## against ##: 0 1, place 0.95
DIAGONAL = 145**0.5


def draw(row):
    return np.array([[pixel == "#" for pixel in row]], np.uint8)


def measure(prediction, *, patients="pqrst", reference=REFERENCE, ruler=PIXELS, probabilities=False):
    measured = []
    for patient in patients:
        mask = draw(prediction[patient])
        probs = mask.astype(np.float32) if probabilities else None
        measured.append(measure_patient(patient, [MaskPair(patient, 1, draw(reference[patient]), mask, probs)], ruler))
    return collect(measured, list(patients), ruler)


def test_the_metrics_of_two_sides():
    a, b = measure(A), measure(B)
    found = compare(a, b, {})["metrics"]
    ours, theirs = (summarise_measures(side)["metrics"] for side in (a, b))
    assert list(found) == build_terms(a).names and "dice_batch_soft" not in found
    for name, row in found.items():
        assert (row["a"], row["b"]) == (ours[name], theirs[name])
        if None not in (row["a"], row["b"]):
            assert row["difference"] == row["a"] - row["b"]
    assert found["dice_patient"]["difference"] == pytest.approx((1 + 2 / 3 + 0) / 3 - (2 / 3 + 2 / 3 + 1 / 2) / 3)
    # A: 6 of 10 px, 1 false; B: 5 of 10, 1 false
    assert found["dice_pooled"]["difference"] == pytest.approx(12 / 17 - 10 / 16)
    # a patient's distance is left out only where both its masks are empty: s, and t for B
    assert found["hd95_px"]["a"] == pytest.approx((0 + 1.85 + DIAGONAL + DIAGONAL) / 4)
    assert found["hd95_px"]["b"] == pytest.approx((1.85 + 1.85 + 0.95) / 3)
    assert found["lesion_sensitivity"] == {
        "a": pytest.approx(2 / 3),
        "b": 1,
        "difference": pytest.approx(-1 / 3),
        "interval": pytest.approx([-1, 0]),
    }


def test_the_interval_of_a_difference_draws_the_same_patients_for_both():
    """Of p, q and r the differences of dice are 1/3, 0 and -1/2, and a resample's is the mean of those it drew."""
    found = compare(measure(A, patients="pqr"), measure(B, patients="pqr"), {})["metrics"]["dice_patient"]
    drawn = np.array([1 / 3, 0, -1 / 2])[np.random.default_rng(0).integers(0, 3, (10000, 3))].mean(axis=1)
    assert found["interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


@pytest.mark.parametrize("ruler", [PIXELS, IN_MM])
@pytest.mark.parametrize("prediction", [A, B])
def test_against_itself_there_is_no_difference(prediction, ruler):
    side = measure(prediction, ruler=ruler, probabilities=True)
    grouping = {"kind": dict(zip("pqrst", "xxyyy", strict=True))}
    found = compare(side, side, grouping)
    terms = build_terms(side)
    assert list(found["metrics"]) == terms.names and "ece" in terms.names
    for row in found["metrics"].values():
        assert row["a"] == row["b"] and row["difference"] == 0
        assert row["interval"] == [0, 0]
    for row in found["patients"].values():
        assert (row["wins"], row["losses"], row["ties"]) == (0, 0, row["pairs"])
        assert row["mean_difference"] == row["median_difference"] == 0 and row["wilcoxon_p"] is None
    assert [row["difference"] for row in found["by_patient"]] == [0, 0, 0]
    x, y = found["by_group"]["kind"]
    assert x["interval"] == [0, 0] and y["interval"] is None  # of r, s and t only r has tumour


def test_no_interval_where_a_side_has_fewer_than_two_patients():
    # q, s and t: one has tumour; B has a distance for q alone, A for q and t
    found = compare(measure(A, patients="qst"), measure(B, patients="qst"), {})["metrics"]
    assert found["dice_patient"]["difference"] == 0 and found["dice_patient"]["interval"] is None
    assert found["hd95_px"]["difference"] == pytest.approx((1.85 + DIAGONAL) / 2 - 1.85)
    assert found["hd95_px"]["interval"] is None
    assert found["accuracy"]["interval"] is not None
    nobody = compare(measure(A, patients="s"), measure(B, patients="s"), {})["metrics"]["dice_patient"]
    assert nobody == {"a": None, "b": None, "difference": None, "interval": None}


def test_who_wins():
    found = compare(measure(A), measure(B), {})["patients"]
    assert list(found) == ["dice_patient", "iou_patient", *PIXELS.names]
    # of p, q and r, who have tumour: A wins p, ties q and loses r; s and t, with no dice or a 0, do not play
    for name, differences in {"dice_patient": [1 / 3, 0, -1 / 2], "iou_patient": [1 / 2, 0, -1 / 3]}.items():
        row = found[name]
        assert (row["pairs"], row["wins"], row["ties"], row["losses"]) == (3, 1, 1, 1)
        assert row["mean_difference"] == pytest.approx(np.mean(differences))
        assert row["median_difference"] == 0
    # the smaller distance wins: A's 0 against 1.85, and B's 0.95 against the diagonal; t has a distance in A alone
    row = found["hd95_px"]
    assert (row["pairs"], row["wins"], row["ties"], row["losses"]) == (3, 1, 1, 1)
    assert row["mean_difference"] == pytest.approx((-1.85 + 0 + DIAGONAL - 0.95) / 3)
    back = compare(measure(B, patients="pq"), measure(A, patients="pq"), {})["patients"]
    for name in ("dice_patient", "iou_patient", *PIXELS.names[:3]):  # 2 px off is within 2 px
        assert (back[name]["wins"], back[name]["losses"]) == (0, 1), name


def test_a_false_alarm_of_both_sides_is_a_distance_but_no_dice():
    found = compare(measure(A), measure(B | {"t": "..##........"}), {})["patients"]
    for name, pairs, ties in (("dice_patient", 3, 1), ("iou_patient", 3, 1), ("hd95_px", 4, 2), ("assd_px", 4, 2)):
        assert (found[name]["pairs"], found[name]["ties"]) == (pairs, ties), name


def test_patients_by_what_a_gains():
    assert compare(measure(A), measure(B), {})["by_patient"] == [
        {"patient_id": "r", "a": 0, "b": 1 / 2, "difference": -1 / 2},
        {"patient_id": "q", "a": 2 / 3, "b": 2 / 3, "difference": 0},
        {"patient_id": "p", "a": 1, "b": 2 / 3, "difference": pytest.approx(1 / 3)},
    ]


def test_groups_of_a_comparison():
    groupings = {
        "place": {"r": "west", "p": "east", "q": "east", "x": "north", "t": "west"},
        "tumour": {"s": "none", "t": "none"},
        "unknown": {},
    }
    found = compare(measure(A), measure(B), groupings)["by_group"]
    # the groups' own order; nobody is in the north, and s stands in no group
    west, east = found["place"]
    assert west == {"group": "west", "patients": 2, "a": 0, "b": 1 / 2, "difference": -1 / 2, "interval": None}
    assert east == {
        "group": "east",
        "patients": 2,
        "a": pytest.approx(5 / 6),
        "b": pytest.approx(2 / 3),
        "difference": pytest.approx(1 / 6),
        "interval": pytest.approx([0, 1 / 3]),
    }
    assert found["tumour"] == [
        {"group": "none", "patients": 2, "a": None, "b": None, "difference": None, "interval": None}
    ]
    assert found["unknown"] == []


def test_only_what_both_sides_have_is_compared():
    with_probs, without = measure(A, probabilities=True), measure(B)
    for pair in ((with_probs, without), (without, with_probs)):
        assert list(compare(*pair, {})["metrics"]) == build_terms(without).names
    assert {"ece", "brier"} <= compare(with_probs, measure(B, probabilities=True), {})["metrics"].keys()


def test_a_comparison_is_ready_for_json():
    found = compare(measure(A, probabilities=True), measure(B, probabilities=True), {"place": {"p": "x", "s": "y"}})
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_two_that_do_not_measure_the_same_are_refused():
    moved = REFERENCE | {"q": "#####......."}
    for other in (
        measure(B, patients="pqrs"),
        measure(B, patients="qprst"),
        measure(B, reference=moved),
        collect([measure_patient("z", [MaskPair("z", 1, draw("#"), draw("#"))], PIXELS)], ["z"], PIXELS),
    ):
        for pair in ((measure(A), other), (other, measure(A))):
            with pytest.raises(InputError, match="do not measure the same slices"):
                compare(*pair, {})


# groups of one side


@pytest.mark.parametrize("ruler", [PIXELS, IN_MM])
def test_a_group_is_as_if_only_its_patients_had_been_measured(ruler):
    groupings = {
        "place": {"t": "west", "p": "east", "r": "west", "q": "east", "x": "north"},
        "tumour": {"s": "none"},
        "unknown": {},
    }
    found = summarise_groups(measure(A, ruler=ruler), groupings)
    assert list(found) == list(groupings)
    assert [row["group"] for row in found["place"]] == ["west", "east"]  # as the grouping has them
    assert found["unknown"] == []
    names = ["dice_patient", "dice_pooled", "dice_slice_tumour", f"hd95_{ruler.unit}", "lesion_sensitivity"]
    for row, members in ((found["place"][0], "rt"), (found["place"][1], "pq"), (found["tumour"][0], "s")):
        alone = summarise_measures(measure(A, patients=members, ruler=ruler))
        assert list(row) == ["group", "patients", "patients_with_tumour", "slices", "metrics", "intervals"]
        for key in ("patients", "patients_with_tumour", "slices"):
            assert row[key] == alone["counted"][key]
        assert list(row["metrics"]) == list(row["intervals"]) == names
        for key in ("metrics", "intervals"):
            for name in names:
                assert row[key][name] == pytest.approx(alone[key][name]), (key, name)
    assert found["place"][1]["intervals"]["dice_patient"] == pytest.approx([2 / 3, 1])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_slices_of_a_group_are_counted():
    pairs = [MaskPair(f"p{n}", n, draw("#."), draw("#.")) for n in range(3)]
    other = [MaskPair("q0", 0, draw(".."), draw(".."))]
    measured = [measure_patient("p", pairs, PIXELS), measure_patient("q", other, PIXELS)]
    tables = collect(measured, ["p2", "q0", "p0", "p1"], PIXELS)
    p, q = summarise_groups(tables, {"all": {"p": "one", "q": "two"}})["all"]
    assert (p["slices"], p["patients_with_tumour"], q["slices"], q["patients_with_tumour"]) == (3, 1, 1, 0)
