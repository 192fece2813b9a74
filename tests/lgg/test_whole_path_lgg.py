"""The path on six real patients: what predict writes for raw TIFFs measures as the run itself does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainseg_cli import prepare
from brainseg_cli.config import Config
from brainseg_cli.evaluate import conclude, measure_folders, measure_run
from brainseg_cli.io.images import read_image, read_mask
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.train import train

pytestmark = pytest.mark.lgg

EXACT = ("--device", "cpu", "--precision", "fp32")
"""As eval computes."""
SPLIT = {
    "TCGA_CS_4941_19960909": "train",
    "TCGA_DU_5855_19951217": "train",
    "TCGA_CS_6186_20000601": "train",
    "TCGA_CS_4942_19970222": "val",
    "TCGA_CS_5395_19981004": "test",
    "TCGA_DU_5872_19950223": "test",
}


@pytest.fixture(scope="module")
def six(lgg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients beside a table of who is in which split."""
    folder = tmp_path_factory.mktemp("lgg")
    (folder / "split.csv").write_text("patient_id,split\n" + "".join(f"{p},{s}\n" for p, s in SPLIT.items()))
    for patient in SPLIT:
        shutil.copytree(lgg / patient, folder / "slices" / patient)
    return folder


@pytest.fixture(scope="module")
def of_real_slices(six: Path, tiny: Callable[..., Config]) -> Path:
    """One epoch of a tiny network, at 64 pixels."""
    prepare.write_dataset(prepare.check(six / "slices", split=str(six / "split.csv")), six / "dataset")

    class Silent:
        def on_step(self, *_: Any) -> None: ...
        def on_epoch(self, *_: Any, **__: Any) -> None: ...
        def on_message(self, *_: Any) -> None: ...

    config = tiny({"train.epochs": 1, "train.batch_size": 16, "preprocess.size": 64})
    train(six / "dataset", six / "run", config, Silent(), device_name="cpu", workers=0)
    return six / "run"


def test_masks_of_raw_tiffs_measure_as_the_run_does(
    brainseg: Callable[..., Any], six: Path, of_real_slices: Path, tmp_path: Path
) -> None:
    tested = [name for name, split in SPLIT.items() if split == "test"]
    inputs = [six / "slices" / name for name in tested]
    ended = brainseg("predict", *inputs, "-m", of_real_slices, "-o", tmp_path / "masks", *EXACT)
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 0 and {record["patient_id"] for record in records} == set(tested)
    assert all(read_mask(Path(record["mask"])).shape == (256, 256) for record in records[::9])
    assert len(load_bundle(of_real_slices)[1].channel_names) == 3

    run = conclude(measure_run(of_real_slices, device_name="cpu")).summary
    side = measure_folders(six / "slices", tmp_path / "masks", patients=of_real_slices / "split.csv")
    folders = conclude(side).summary
    assert run["counted"] == folders["counted"]
    assert run["counted"]["slices"] == len(records) and run["counted"]["patients_with_tumour"] == 2
    assert run["counted"]["prediction_px"] == sum(record["area_px"] for record in records) > 0
    assert set(run["metrics"]) - set(folders["metrics"]) == {"ece", "brier"}
    for name, value in folders["metrics"].items():
        assert name.endswith("_batch_soft") or run["metrics"][name] == value, name
    assert run["lesions"] == folders["lesions"] and run["lesions"]["connectivity"] == {"26": 2}


def test_overlays_of_real_slices(brainseg: Callable[..., Any], lgg: Path, tmp_path: Path) -> None:
    patient = "TCGA_DU_5855_19951217"
    chosen = sorted(
        (path for path in (lgg / patient).glob("*_mask.tif") if read_mask(path).sum() > 500), key=lambda path: path.name
    )[:2]
    images = [path.with_name(path.name.replace("_mask", "")) for path in chosen]
    arguments = [*images, "--masks", lgg, "--reference", lgg, "--channel", 1]
    ended = brainseg("overlay", *arguments, "-o", tmp_path / "figures")
    figures = ended.out.splitlines()
    assert ended.code == 0 and len(figures) == len(images) == 2
    for name in figures:
        height, width, channels = read_image(Path(name)).shape
        assert height >= 256 and width >= 256 and channels == 3
