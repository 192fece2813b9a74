"""Every metric as a ratio of two sums over patients: its value, its interval and its subgroups all come from that.

A mean over patients has the patient's value above and 1 below, a pooled ratio has pixels above and below, a mean
over slices has the patient's sum above and its number of slices below. A patient that a metric leaves out has 0 in
both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainseg_cli.metrics.calibration import compute_ece
from brainseg_cli.metrics.doubt import Resamples, interval_of_ratio, percentile_interval

Interval = list[float] | None
LOWER_IS_BETTER = ("hd95_", "assd_", "lesion_false_alarms_", "ece", "brier")
"""How the names of metrics begin that improve downwards; the others improve upwards."""


@dataclass(frozen=True)
class Terms:
    """Numerators and denominators, float64, one row a patient (the index) and one column a metric.

    `bins` (patients, BINS, 3) are the patients' reliability sums, from which `ece` is taken: the one metric that is
    no ratio of sums but a function of several. None where there are no probabilities.
    """

    numerators: pd.DataFrame
    denominators: pd.DataFrame
    bins: npt.NDArray[np.float64] | None = None

    @property
    def names(self) -> list[str]:
        return [*map(str, self.numerators.columns), *([] if self.bins is None else ["ece"])]

    def values(self) -> dict[str, float | None]:
        """Each metric over all patients; None where nothing defines it."""
        above, below = (side.to_numpy().sum(axis=0).tolist() for side in (self.numerators, self.denominators))
        ratios = [a / b if b else None for a, b in zip(above, below, strict=True)]
        values: dict[str, float | None] = dict(zip(self.names, ratios, strict=False))
        if self.bins is not None:
            ece = float(compute_ece(self.bins.sum(axis=0)))
            values["ece"] = None if np.isnan(ece) else ece
        return values

    def count(self, name: str) -> int:
        """How many patients contribute to a metric."""
        return len(self.numerators) if name == "ece" else int((self.denominators[name] > 0).sum())

    def intervals(self, resamples: Resamples) -> dict[str, Interval]:
        """The 95 % bootstrap interval of each; None where fewer than two patients contribute."""
        found = interval_of_ratio(resamples, self.numerators.to_numpy(), self.denominators.to_numpy())
        intervals: dict[str, Interval] = dict(zip(self.names, found, strict=False))
        if self.bins is not None:
            intervals["ece"] = percentile_interval(self.resample("ece", resamples)) if len(self.bins) > 1 else None
        return intervals

    def resample(self, name: str, resamples: Resamples) -> npt.NDArray[np.float64]:
        """One metric over each resample of the patients, (B,), NaN where a resample does not define it.

        KeyError for a metric that is not there.
        """
        if name == "ece":
            if self.bins is None:
                raise KeyError(name)
            sums = resamples.sums(self.bins.reshape(len(self.bins), -1))
            return compute_ece(sums.reshape(-1, *self.bins.shape[1:]))
        above, below = (resamples.sums(side[[name]].to_numpy())[:, 0] for side in (self.numerators, self.denominators))
        with np.errstate(invalid="ignore"):
            return above / below

    def select(self, patients: Sequence[str], names: Sequence[str] | None = None) -> "Terms":
        """Those of some patients, and of some metrics where `names` are given. KeyError for one that is not there."""
        chosen = self.names if names is None else names
        rows, columns = list(patients), [name for name in chosen if name != "ece"]
        bins = None
        if "ece" in chosen:
            if self.bins is None:
                raise KeyError("ece")
            bins = self.bins[self.numerators.index.get_indexer(pd.Index(rows))]
        return Terms(self.numerators.loc[rows, columns], self.denominators.loc[rows, columns], bins)

    def join(self, other: "Terms") -> "Terms":
        """Both sets of metrics, of the same patients in the same order; at most one of the two has bins."""
        return Terms(
            pd.concat([self.numerators, other.numerators], axis=1),
            pd.concat([self.denominators, other.denominators], axis=1),
            other.bins if self.bins is None else self.bins,
        )


class TermsBuilder:
    """Collects metrics of the patients of a table, in its order, and of slices: `owners` has the patient of each."""

    def __init__(self, patients: pd.DataFrame, owners: "pd.Series[str]") -> None:
        self.index = pd.Index(patients["patient_id"], name="patient_id")
        self._places = self.index.get_indexer(owners)
        self._above: dict[str, npt.NDArray[np.float64]] = {}
        self._below: dict[str, npt.NDArray[np.float64]] = {}

    def ratio(self, name: str, numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> None:
        """A pooled ratio: two sums a patient."""
        self._above[name] = np.asarray(numerator, dtype=np.float64)
        self._below[name] = np.asarray(denominator, dtype=np.float64)

    def mean(self, name: str, values: npt.ArrayLike) -> None:
        """A mean over patients: a value each, NaN for one that is left out."""
        array = np.asarray(values, dtype=np.float64)
        self.ratio(name, np.nan_to_num(array, nan=0.0), ~np.isnan(array))

    def slice_mean(self, name: str, values: npt.ArrayLike) -> None:
        """A mean over slices: a value each, NaN for one that is left out."""
        array = np.asarray(values, dtype=np.float64)
        self.ratio(name, self.sum_slices(np.nan_to_num(array, nan=0.0)), self.sum_slices(~np.isnan(array)))

    def sum_slices(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """A value a slice, summed by patient."""
        weights = np.asarray(values, dtype=np.float64)
        return np.bincount(self._places, weights, minlength=len(self.index)).astype(np.float64)

    def build(self, bins: npt.NDArray[np.float64] | None = None) -> Terms:
        return Terms(pd.DataFrame(self._above, self.index), pd.DataFrame(self._below, self.index), bins)
