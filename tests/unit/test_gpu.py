"""What only a CUDA device shows: mixed precision, the same masks as the CPU's, torch.compile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from predicting import make, segment

from brainseg_cli.config import Config
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.images import read_image, read_mask
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.devices import choose_device, choose_precision, list_devices
from brainseg_cli.models.locate import find_bundle, open_bundle
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.parity import measure_parity
from brainseg_cli.models.runtimes import HALF_ERROR, Choice, open_network
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.train import resume, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_training_in_every_precision(
    precision: str, dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    config = tiny({"train.precision": precision, "train.epochs": 4, "train.ema_decay": 0})
    result = train(dataset, tmp_path / "run", config, recorder, device_name="cuda", workers=2)
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert result.epochs == len(table) == 4 and np.isfinite(table["train_loss"]).all()
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]
    model, _ = load_bundle(tmp_path / "run")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_run_begun_on_a_gpu_goes_on(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    class Stop(Exception):
        pass

    class Stopping(type(recorder)):  # type: ignore[misc]
        def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
            if epoch == 2:
                raise Stop

    config = tiny({"train.precision": "fp16", "train.ema_decay": 0.9})
    with pytest.raises(Stop):
        train(dataset, tmp_path / "run", config, Stopping(), device_name="cuda")
    assert resume(tmp_path / "run", recorder, device_name="cuda").epochs == 3
    assert [row["epoch"] for row in recorder.rows] == [2, 3]


def test_a_gpu_gives_the_probabilities_and_masks_of_the_cpu(run: Path, phantom: Path, tmp_path: Path) -> None:
    found = []
    for name in ("cpu", "cuda"):
        model, bundle = load_bundle(run)
        segmenter = Segmenter(TorchNetwork(model, bundle.preprocess, len(bundle.channel_names), choose_device(name)))
        paths = sorted(path for path in phantom.rglob("*.tif") if not path.stem.endswith("_mask"))
        found.append(segmenter.predict_probs([read_image(path) for path in paths]))
        outcomes = segment(make(run, tmp_path / name, phantom / patient_name(3)), device=name)
        assert all(outcome.record["status"] == "ok" for outcome in outcomes)
    for cpu, cuda in zip(*found, strict=True):
        np.testing.assert_allclose(cuda, cpu, atol=1e-3)
    for path in (tmp_path / "cpu").glob("*.png"):
        assert (read_mask(path) != read_mask(tmp_path / "cuda" / path.name)).mean() < 0.01


def test_half_precision_is_chosen_where_it_agrees(run: Path, phantom: Path) -> None:
    folder = find_bundle(run)
    chosen, exact = (
        open_network(open_bundle(folder), Choice(device="cuda", precision=name)) for name in ("auto", "fp32")
    )
    assert (chosen.described, exact.described) == ("torch fp16 cuda", "torch fp32 cuda")
    assert measure_parity(chosen, exact).max_error <= HALF_ERROR
    image = read_image(phantom / patient_name(3) / f"{patient_name(3)}_1.tif")
    pending = [Segmenter(chosen).submit([Segmenter(chosen).prepare(image)] * 4) for _ in range(3)]
    alone = Segmenter(exact).predict_probs([image])[0]
    for each in pending:  # begun before the first was asked for
        np.testing.assert_allclose(
            each()[3], Segmenter(exact).submit([Segmenter(exact).prepare(image)])()[0], atol=HALF_ERROR
        )
    np.testing.assert_allclose(Segmenter(chosen).predict_probs([image])[0], alone, atol=HALF_ERROR)


def test_compiled_training(dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any) -> None:
    config = tiny({"train.compile": True, "train.epochs": 2, "train.precision": "auto"})
    train(dataset, tmp_path / "run", config, recorder, device_name="cuda")
    assert len(recorder.rows) == 2
    names = load_bundle(tmp_path / "run")[0].state_dict()
    assert not any(name.startswith("_orig_mod") for name in names)


def test_the_gpu_is_chosen_and_described() -> None:
    device = choose_device("auto")
    assert device.type == "cuda" and choose_precision("auto", device) in ("bf16", "fp16")
    assert any(torch.cuda.get_device_name(0) in name for name in list_devices())
