"""Gates: what is a bound, who keeps it, and how it is told."""

import pytest

from brainseg_cli.errors import UsageError
from brainseg_cli.metrics.gates import Gate, check_gate, check_names, parse_gate, tell_gate

KNOWN = ["dice_patient", "dice_pooled", "hd95_px", "ece"]


@pytest.mark.parametrize(
    "text, metric, limit",
    [("dice_patient=0.80", "dice_patient", 0.8), (" hd95_px = 1e1 ", "hd95_px", 10.0), ("ece=-1", "ece", -1.0)],
)
def test_a_metric_and_a_number(text, metric, limit):
    assert parse_gate(text, "under") == Gate(metric, "under", limit)
    assert parse_gate(text, "over") == Gate(metric, "over", limit)


@pytest.mark.parametrize(
    "text", ["", "=", "dice_patient", "dice_patient=", "=0.8", "a=b", "a=0,8", "a=80%", "a=nan", "a=inf", "a=0.8=0.9"]
)
@pytest.mark.parametrize("bound", ["under", "over"])
def test_anything_else_is_refused_in_one_line(text, bound):
    with pytest.raises(UsageError) as raised:
        parse_gate(text, bound)
    assert str(raised.value).startswith(f"--fail-{bound} {text!r}") and "\n" not in str(raised.value)


def test_an_unknown_metric_names_the_nearest():
    check_names([Gate("dice_patient", "under", 0.8), Gate("ece", "over", 0.1)], KNOWN)
    check_names([], KNOWN)
    with pytest.raises(UsageError, match=r"--fail-over: there is no metric 'hd95_mm' \(did you mean hd95_px\?\)"):
        check_names([Gate("ece", "over", 0.1), Gate("hd95_mm", "over", 10)], KNOWN)
    with pytest.raises(UsageError, match="known here: dice_patient, dice_pooled, hd95_px, ece"):
        check_names([Gate("qqq", "under", 1)], KNOWN)
    with pytest.raises(UsageError, match="known here: none"):
        check_names([Gate("dice_pooled", "under", 1)], [])
    with pytest.raises(UsageError, match="ece needs probabilities"):
        check_names([Gate("ece", "over", 1)], ["dice_patient"])


@pytest.mark.parametrize(
    "metric, bound", [("hd95_px", "under"), ("ece", "under"), ("dice_patient", "over"), ("lesion_sensitivity", "over")]
)
def test_a_gate_that_looks_the_wrong_way_would_always_be_met(metric, bound):
    other = {"under": "over", "over": "under"}[bound]
    with pytest.raises(UsageError, match=rf"{metric} is better the \w+ it is \(--fail-{other}\)"):
        check_names([Gate(metric, bound, 1)], [metric])
    check_names([Gate(metric, other, 1)], [metric])


@pytest.mark.parametrize(
    "bound, value, met",
    [
        ("under", 0.8, True),
        ("under", 0.9, True),
        ("under", 0.7999999999999999, False),
        ("under", None, False),
        ("over", 0.8, True),
        ("over", 0.1, True),
        ("over", 0.8000000000000002, False),
        ("over", None, False),
    ],
)
def test_the_limit_itself_is_allowed_and_nothing_is_not(bound, value, met):
    assert check_gate(Gate("ece", bound, 0.8), {"ece": value, "dice_patient": 0.5}) == {
        "metric": "ece",
        "bound": bound,
        "limit": 0.8,
        "value": value,
        "met": met,
    }


@pytest.mark.parametrize(
    "bound, limit, value, line",
    [
        ("under", 0.8, 0.7431, "gate not met: ece 0.7431 is under 0.80"),
        ("under", 0.8, 0.74312, "gate not met: ece 0.7431 is under 0.80"),
        ("under", 0.8, 0.79999, "gate not met: ece 0.79999 is under 0.80"),
        ("under", 0.8, 0.7999999999999999, "gate not met: ece 0.7999999999999999 is under 0.80"),
        ("under", 0.8, 0.8, "gate met: ece 0.8000 is not under 0.80"),
        ("under", 0.8125, 0.81, "gate not met: ece 0.8100 is under 0.8125"),
        ("over", 10.0, 12.3, "gate not met: ece 12.3000 is over 10.00"),
        ("over", 10.0, 10.00004, "gate not met: ece 10.00004 is over 10.00"),
        ("over", 10.0, 9.5, "gate met: ece 9.5000 is not over 10.00"),
        ("over", 0.12345678, 0.12345678, "gate met: ece 0.12345678 is not over 0.12345678"),
        ("over", 0.0, 1e-20, "gate not met: ece 1e-20 is over 0.00"),
        ("over", 1e-05, 2e-05, "gate not met: ece 0.00002 is over 1e-05"),
        ("under", 0.8, None, "gate not met: ece is not defined, 0.80 was asked for"),
    ],
)
def test_what_is_told_can_be_checked_by_reading_it(bound, limit, value, line):
    assert tell_gate(check_gate(Gate("ece", bound, limit), {"ece": value})) == line
