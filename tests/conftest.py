"""What every test may ask for: a seeded generator, a small phantom, a dataset and a run made of it, the real slices."""

import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.config import Config, load_config
from brainseg_cli.data.phantom import TUMOUR_FREE_EVERY, make_patient, patient_name
from brainseg_cli.io.images import write_image, write_mask

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: that each takes every core makes all of them slow
    os.environ.setdefault("OMP_NUM_THREADS", "1")

HEIGHT, WIDTH = 40, 56  # never square: a swapped axis must show
WITHOUT_TUMOUR = TUMOUR_FREE_EVERY - 1
SINGLE_PIXEL, DEEP = 1, 2  # the patients of one tumour pixel and of 16-bit images
SLICES = {0: 5, SINGLE_PIXEL: 3, DEEP: 4, 3: 7, 4: 6, WITHOUT_TUMOUR: 8}  # patient: how many, no two alike


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run, and for every test."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in LGG layout: six patients, 33 slices of 40 x 56, to be read and never written to.

    PHANTOM_BB_0002 has one tumour pixel, PHANTOM_CC_0003 16-bit images, PHANTOM_BB_0011 no tumour.
    """
    folder = tmp_path_factory.mktemp("phantom")
    for number, count in SLICES.items():
        name = patient_name(number)
        made = make_patient(0, number, slices=(count, count), height=HEIGHT, width=WIDTH)
        fullest = max(range(count), key=lambda at: int(made[at][1].sum()))
        for at, (image, mask) in enumerate(made):
            if number == SINGLE_PIXEL:
                mask = _keep_one_pixel(mask) if at == fullest else np.zeros_like(mask)
            shown = image.astype(np.uint16) * 37 if number == DEEP else image
            write_image(folder / name / f"{name}_{at + 1}.tif", shown)
            write_mask(folder / name / f"{name}_{at + 1}_mask.tif", mask)
    return folder


SPLIT = {0: "val", SINGLE_PIXEL: "val", DEEP: "test", 3: "train", 4: "train", WITHOUT_TUMOUR: "test"}
TINY = {
    "preprocess.size": 32,
    "preprocess.crop": "none",
    "model.encoder": "tu-test_resnet",
    "model.decoder_channels": (16, 8, 8),
    "train.epochs": 3,
    "train.batch_size": 4,
    "train.precision": "fp32",
    "train.choose": "best",
    "optimizer.lr": 1e-2,
}
"""A network of 80 thousand parameters: an epoch of the phantom takes a fraction of a second."""


@pytest.fixture(scope="session")
def split_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who trains, chooses and tests: 13, 8 and 12 slices. Of the test patients one has 16 bits, one no tumour."""
    path = tmp_path_factory.mktemp("split") / "split.csv"
    rows = [f"{patient_name(number)},{split}" for number, split in SPLIT.items()]
    path.write_text("\n".join(["patient_id,split", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def dataset(phantom: Path, split_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom, prepared and split as `split_table` says; to be read and never written to."""
    from brainseg_cli import prepare

    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    prepare.write_dataset(prepare.check(phantom, split=str(split_table), workers=1), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """What `tiny` sets over the preset `fast`, dotted."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """`tiny()` or `tiny({"train.epochs": 1})`: the configuration of a tiny network, with dotted overrides."""

    def build(overrides: Mapping[str, Any] | None = None) -> Config:
        return load_config("fast", overrides=TINY | dict(overrides or {}))

    return build


@dataclass
class Recorder:
    """An observer of the training loop that keeps what it hears."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    best: list[bool] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
        self.steps.append((epoch, step, steps))

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None:
        self.rows.append(row)
        self.best.append(best)

    def on_message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def recorder() -> Recorder:
    """Whom to hand to a training loop."""
    return Recorder()


@pytest.fixture(scope="session")
def run(dataset: Path, tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs on `dataset`, without a report; to be read and never written to."""
    from brainseg_cli.train import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    train(dataset, folder, tiny(), Recorder(), preset="fast", device_name="cpu", workers=0)
    return folder


@pytest.fixture(scope="session")
def other_run(dataset: Path, tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `run`, from other random numbers: the two agree on some pixels."""
    from brainseg_cli.train import train

    folder = tmp_path_factory.mktemp("trained") / "other"
    train(dataset, folder, tiny({"train.seed": 1}), Recorder(), preset="fast", device_name="cpu", workers=0)
    return folder


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def brainseg(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`brainseg("eval", run)`: the real program, in this process."""
    for name in [name for name in os.environ if name.startswith("BRAINSEG_")]:
        monkeypatch.delenv(name)

    def call(*arguments: object) -> Outcome:
        from brainseg_cli.cli.app import main

        monkeypatch.setenv("BRAINSEG_DEBUG", "")  # --debug sets it, for what the program starts
        monkeypatch.setattr(sys, "argv", ["brainseg", *map(str, arguments)])
        out, err, code = io.StringIO(), io.StringIO(), 0
        heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # the program silences warnings, a test must not go on without them
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            finally:
                for number, handler in heard.items():  # the program's own way with them ends with it
                    signal.signal(number, handler)
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def lgg() -> Path:
    """The real LGG slices; the test is skipped where they are absent."""
    default = Path(__file__).parents[2] / "shared" / "lgg" / "kaggle_3m"
    folder = Path(os.environ.get("BRAINSEG_LGG", default))
    if not folder.is_dir():
        pytest.skip(f"the LGG slices are not at {folder}; BRAINSEG_LGG says where they are")
    return folder


def _keep_one_pixel(mask: np.ndarray) -> np.ndarray:
    """The mask with all but the middle one of its tumour pixels taken away."""
    kept = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    kept[rows[len(rows) // 2], columns[len(rows) // 2]] = 1
    return kept
