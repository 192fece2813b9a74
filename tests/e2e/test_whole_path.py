"""The whole path through the installed script: prepare, train, eval, predict, eval of the masks, overlay."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from brainseg_cli.io.images import read_image, read_mask

SCRIPT = Path(sys.executable).with_name("brainseg")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSEG_")}

REPORT = ["lesions.csv", "patients.csv", "report.html", "report.md", "slices.csv", "summary.json"]


def brainseg(*arguments: object, cwd: Path) -> str:
    """Its stdout; anything but success is shown."""
    command = [str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    return done.stdout


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def without_cache(run: Path) -> list[str]:
    """All of a run but the export in its cache, which has the name of its hash."""
    names = tree(run)
    cached = [name for name in names if name.startswith("model/cache/")]
    assert [Path(name).suffix for name in cached] == [".onnx"]
    return [name for name in names if name not in cached]


def test_from_slices_to_measured_masks(
    phantom: Path, split_table: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    assert brainseg("prepare", phantom, "-o", "dataset", "--split", split_table, cwd=tmp_path) == "dataset\n"
    assert tree(tmp_path / "dataset") == ["dataset.json", "images.npy", "masks.npy", "slices.csv"]

    settings = {name: value for name, value in tiny_settings.items() if name not in ("train.epochs", "train.precision")}
    flags = [
        part
        for name, value in settings.items()
        for part in ("--set", f"{name}={list(value) if isinstance(value, tuple) else value}")
    ]
    assert brainseg("train", "dataset", "-o", "run", "--preset", "fast", "--epochs", 2, *flags, cwd=tmp_path) == "run\n"
    of_the_run = [
        "config.toml",
        "figures/curves.png",
        "figures/overlay-best.png",
        "figures/overlay-median.png",
        "figures/overlay-worst.png",
        "figures/overlays.png",
        "metrics.csv",
        "model/brainseg.json",
        "model/config.json",
        "model/model.safetensors",
        *(f"report/{name}" for name in REPORT),
        "run.json",
        "split.csv",
        "state/last.pt",
        "state/previous.pt",
        "thresholds.csv",
        "timings.csv",
        "train.log",
    ]
    assert without_cache(tmp_path / "run") == of_the_run
    at_the_end = (tmp_path / "run" / "report" / "summary.json").read_text()

    assert brainseg("eval", "run", cwd=tmp_path) == "run/report\n"
    assert without_cache(tmp_path / "run") == of_the_run
    assert (tmp_path / "run" / "report" / "summary.json").read_text() == at_the_end

    exactly = ("--precision", "fp32")  # as eval computes
    lines = brainseg("predict", phantom, "-m", "run", "-o", "masks", *exactly, cwd=tmp_path).splitlines()
    images = [path.relative_to(phantom) for path in phantom.rglob("*.tif") if not path.stem.endswith("_mask")]
    masks = sorted(path.with_suffix(".png").as_posix() for path in images)
    assert tree(tmp_path / "masks") == sorted([*masks, "predictions.jsonl"])
    records = [json.loads(line) for line in lines]
    assert len(records) == 33 and {record["status"] for record in records} == {"ok"}
    drawn = sum(int(read_mask(tmp_path / "masks" / name).sum()) for name in masks)
    assert sum(record["area_px"] for record in records) == drawn > 0

    arguments = ["--reference", phantom, "--prediction", "masks", "--patients", "run/split.csv"]
    assert brainseg("eval", *arguments, cwd=tmp_path) == "report\n"
    assert tree(tmp_path / "report") == REPORT
    run, folders = (json.loads((tmp_path / at / "summary.json").read_text()) for at in ("run/report", "report"))
    assert set(run["metrics"]) - set(folders["metrics"]) == {"ece", "brier"}
    for name, value in folders["metrics"].items():
        assert name.endswith("_batch_soft") or run["metrics"][name] == value, name
        assert folders["find_nothing"][name] == run["find_nothing"][name]
    assert run["counted"] == folders["counted"] and run["lesions"] == folders["lesions"]

    arguments = [phantom, "--masks", "masks", "--reference", phantom, "-o", "figures"]
    shown = brainseg("overlay", *arguments, cwd=tmp_path).splitlines()
    assert tree(tmp_path / "figures") == masks and sorted(shown) == [f"figures/{name}" for name in masks]
    assert all(read_image(tmp_path / name).shape[2] == 3 for name in shown[:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dataset", "figures", "masks", "report", "run",
    ]  # fmt: skip
