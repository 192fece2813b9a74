"""Gates: a metric and the bound it has to keep, so that a batch job fails when a model gets worse."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from brainseg_cli.errors import UsageError
from brainseg_cli.metrics.terms import LOWER_IS_BETTER
from brainseg_cli.types import Json

Bound = Literal["under", "over"]


@dataclass(frozen=True)
class Gate:
    """`bound` is where the metric must not be: "under" the limit, or "over" it. The limit itself is allowed."""

    metric: str
    bound: Bound
    limit: float


def parse_gate(text: str, bound: Bound) -> Gate:
    """`dice_patient=0.80`, as --fail-under or --fail-over takes it. UsageError for anything else."""
    metric, _, number = (part.strip() for part in text.partition("="))
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not metric or not math.isfinite(limit):
        raise UsageError(
            f"--fail-{bound} {text!r} is not a metric and a number", hint="METRIC=NUMBER, as in dice_patient=0.80"
        )
    return Gate(metric, bound, limit)


def check_names(gates: Iterable[Gate], known: Collection[str]) -> None:
    """UsageError for the first gate on a metric that is not among the `known`, or that looks the wrong way."""
    for gate in gates:
        if gate.metric in ("ece", "brier") and gate.metric not in known:
            raise UsageError(f"--fail-{gate.bound}: {gate.metric} needs probabilities", hint="--threshold and maps")
        if gate.metric not in known:
            near = difflib.get_close_matches(gate.metric, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known) or 'none'}"
            raise UsageError(f"--fail-{gate.bound}: there is no metric {gate.metric!r}", hint=hint)
        worse = "over" if gate.metric.startswith(LOWER_IS_BETTER) else "under"
        if gate.bound != worse:
            better = "lower" if worse == "over" else "higher"
            raise UsageError(f"--fail-{gate.bound}: {gate.metric} is better the {better} it is", hint=f"--fail-{worse}")


def check_gate(gate: Gate, metrics: Mapping[str, float | None]) -> Json:
    """{metric, bound, limit, value, met}. A metric that is not defined (None) is never met.

    KeyError for a metric that is not there: `check_names` comes first.
    """
    value = metrics[gate.metric]
    met = value is not None and (value >= gate.limit if gate.bound == "under" else value <= gate.limit)
    return {"metric": gate.metric, "bound": gate.bound, "limit": gate.limit, "value": value, "met": met}


def tell_gate(result: Json) -> str:
    """One line of what `check_gate` found: `gate not met: dice_patient 0.7431 is under 0.80`.

    The value has four decimals, or as many more as it takes to tell it from the limit.
    """
    value, limit, bound = result["value"], result["limit"], result["bound"]
    shown = _show_limit(limit)
    if value is None:
        return f"gate not met: {result['metric']} is not defined, {shown} was asked for"
    verdict = f"gate met: {result['metric']}" if result["met"] else f"gate not met: {result['metric']}"
    return f"{verdict} {_show_value(value, limit)} is {'not ' if result['met'] else ''}{bound} {shown}"


def _show_limit(limit: float) -> str:
    """Every digit of it, two decimals at least."""
    return max(f"{limit:.2f}", repr(limit), key=len)


def _show_value(value: float, limit: float) -> str:
    """The shortest form, from four decimals on, that stands to the limit as the value does."""
    for decimals in range(4, 17):
        shown = f"{value:.{decimals}f}"
        if (float(shown) < limit, float(shown) > limit) == (value < limit, value > limit):
            return shown
    return repr(value)
