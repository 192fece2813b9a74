"""The run/ folder: where everything that a training makes has its place."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from brainseg_cli.config import Config, read_config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import write_json, write_text
from brainseg_cli.io.contracts import Contract, read_contract
from brainseg_cli.models.built_in import list_built_in
from brainseg_cli.models.locate import find_folds
from brainseg_cli.models.metadata import is_export
from brainseg_cli.types import Json


class RunInfo(Contract):
    """run.json: what was trained on and where; what it was told is in config.toml."""

    schema_version: int = 1
    brainseg_version: str
    torch_version: str
    dataset: str
    """Absolute path, where eval and --resume look unless told otherwise."""
    dataset_hash: str
    split: str
    split_hash: str
    fold: int | None
    leaky: bool
    device: str
    precision: str
    parameters: int
    preset: str
    started: str


@dataclass(frozen=True)
class RunFolder:
    """Paths within a run, and the small files that describe it."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def split(self) -> Path:
        return self.path / "split.csv"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def timings(self) -> Path:
        return self.path / "timings.csv"

    @property
    def thresholds(self) -> Path:
        return self.path / "thresholds.csv"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def state(self) -> Path:
        return self.path / "state" / "last.pt"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def resuming(self) -> str:
        """The command that goes on with it."""
        return f"brainseg train --resume -o {shlex.quote(str(self.path))}"

    @property
    def goes_on(self) -> str:
        """How an interrupted run goes on, for a hint."""
        return f"{self.resuming} goes on"

    @property
    def is_begun(self) -> bool:
        """Whether a training has written here, though it may not have come to its first step."""
        return self.info.exists() or self.config.exists()

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def write_start(self, config: Config, info: RunInfo, dataset: Dataset) -> None:
        """config.toml, split.csv, and last run.json, without which it is no run; before the first step."""
        write_text(self.config, config.to_toml())
        columns = ["patient_id", "split"]
        if dataset.info.leaky:  # a patient has slices in several splits: say it slice by slice
            columns = ["patient_id", "image", "split"]
        table = dataset.slices[columns].drop_duplicates()
        write_text(self.split, table.to_csv(index=False))
        write_json(self.info, info.model_dump(mode="json"))

    def clear(self) -> None:
        """Remove what an older run left that could be taken for the new one's: first what makes it a run."""
        self.info.unlink(missing_ok=True)
        for folder in (self.state.parent, self.model, self.figures, *self.path.glob(f"{self.report.name}*")):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.metrics, self.timings, self.thresholds, self.log):
            path.unlink(missing_ok=True)

    def write_epochs(self, rows: Sequence[dict[str, float]], timings: Sequence[dict[str, float]]) -> None:
        """metrics.csv and timings.csv, a row an epoch in each; a value that is not defined is left empty.

        What the clock says stands apart, so that the metrics of an interrupted run are those of one that was not.
        """
        write_text(self.metrics, pd.DataFrame(rows).to_csv(index=False))
        write_text(self.timings, pd.DataFrame(timings).to_csv(index=False))

    def read_metrics(self) -> pd.DataFrame:
        """metrics.csv; InputError where there is none."""
        return self._read_table(self.metrics)

    def write_thresholds(self, rows: Sequence[Json]) -> None:
        """thresholds.csv, a row a threshold: how val scores there."""
        write_text(self.thresholds, pd.DataFrame(rows).to_csv(index=False))

    def read_thresholds(self) -> list[Json] | None:
        """thresholds.csv; None in a run that has not chosen one. InputError where it is damaged."""
        if not self.thresholds.exists():
            return None
        columns = ["threshold", "dice_patient", "dice_pooled"]
        table = self._read_table(self.thresholds, columns)[columns].apply(pd.to_numeric, errors="coerce")
        if not np.isfinite(table.to_numpy(np.float64)).all():
            raise InputError("has cells that are no number", where=self.thresholds)
        return [{str(name): float(value) for name, value in row.items()} for row in table.to_dict("records")]

    def read_split(self) -> dict[str, set[str]]:
        """split.csv: the patients of each split; InputError where it is not there."""
        table = self._read_table(self.split, ["patient_id", "split"])
        return {str(split): set(rows["patient_id"]) for split, rows in table.groupby("split")}

    def read_report(self, name: str) -> pd.DataFrame:
        """A table of report/; InputError where it is not there."""
        return self._read_table(self.report / name)

    def _read_table(self, path: Path, needed: Sequence[str] = ()) -> pd.DataFrame:
        try:
            # empty is not defined; a patient may be called NA
            texts = {"image": str, "patient_id": str}
            table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read as a table: {error}", where=path) from None
        if absent := [name for name in needed if name not in table.columns]:
            raise InputError(f"has no column {', '.join(absent)}", where=path)
        return table

    def read_config(self) -> Config:
        """config.toml."""
        return read_config(self.config)

    def load_dataset(self, path: Path | None = None, *, verify: bool = True) -> Dataset:
        """The dataset that the run began with, or the one at `path`, split as the run had it.

        InputError as `data.manifest.load_dataset`, which says what `verify` is.
        """
        info = self.read_info()
        dataset = load_dataset(path or Path(info.dataset), verify=verify)
        chosen_on_val = self.read_config().train.choose == "best"
        return dataset.with_fold(info.fold if dataset.has_folds else None, val=chosen_on_val)

    def read_info(self) -> RunInfo:
        """run.json. InputError where the folder is no run."""
        if not self.info.exists():
            raise InputError("is no run: it has no run.json", where=self.path, hint=self._suggest())
        return read_contract(self.info, RunInfo)

    def _suggest(self) -> str:
        """What to do where this is no run."""
        is_bundle = (self.path / "brainseg.json").exists()
        if is_bundle and RunFolder(self.path.parent).info.exists():
            return f"its run is {self.path.parent}"
        is_name = str(self.path) in list_built_in() and not any(self.path.glob("[!.]*"))
        if is_bundle or is_name or is_export(self.path):
            return "predict runs a model by itself; then eval --reference DIR --prediction DIR measures its masks"
        return "brainseg train makes one"


def is_kfold(path: Path) -> bool:
    """Whether `path` is no run but holds runs fold0, fold1 and so on."""
    return not RunFolder(path).info.exists() and any(RunFolder(fold).info.exists() for fold in find_folds(path))
