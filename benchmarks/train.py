"""Training as `brainseg train` does it, beside the bare step, a plain PyTorch loop and MONAI, on the same slices."""

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.chip import DTYPES, count_flops, measure_products, wait
from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli.config import Config, load_config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.io.images import write_image
from brainseg_cli.models.build import build_model, to_channels_last
from brainseg_cli.models.devices import choose_device, choose_precision
from brainseg_cli.models.losses import build_loss
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.training.engine import THRESHOLD, Engine
from brainseg_cli.training.optimise import build_optimizer

SEED = 0
CPU_BATCH, CPU_STEPS, GPU_STEPS, MAX_WORKERS = 8, 12, 100, 8
GOAL_EPOCHS, GOAL_SLICES = 120, 2855


class Silent:
    """An observer that hears nothing."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


def run(
    data: Path,
    repeats: int,
    *,
    preset: str,
    image_size: int | None,
    encoder: str | None,
    batch_size: int | None,
    steps: int | None,
    device_name: str,
    workers: int | None,
) -> None:
    """Print the tables and write them. None is the preset's, or what suits the device."""
    device = choose_device(device_name)
    on_gpu = device.type == "cuda"
    config = _configure(preset, image_size, encoder, batch_size if on_gpu else batch_size or CPU_BATCH)
    steps = steps or (GPU_STEPS if on_gpu else CPU_STEPS)
    workers = min(MAX_WORKERS, os.cpu_count() or 1) if workers is None else workers
    dataset = load_dataset(data)
    judged_slices = len(dataset.rows("val"))
    steps = max(1, min(steps, len(dataset.rows("train")) // config.train.batch_size))
    dataset = choose_slices(dataset, steps * config.train.batch_size)
    items = len(dataset.rows("train"))
    precision = choose_precision(config.train.precision, device)
    about = (
        f"{config.model.encoder} at {config.preprocess.size} px, batch {config.train.batch_size}, {precision}, "
        f"{device.type}"
    )
    print(f"{about}; {items} slices an epoch, {workers} workers for the other sides")  # noqa: T201

    torch.manual_seed(SEED)
    # as `brainseg train` has it: on a CPU the network has every core already
    engine = Engine(_build(config, dataset), dataset, config, device, Silent(), workers=workers if on_gpu else 0)
    network = TorchNetwork(engine.final_model, config.preprocess, _channels(dataset), device)
    step = build_bare_step(_build(config, dataset), dataset, config, device)
    ours, bare = "brainseg train", "the bare step, one synthetic batch"
    # against the limit by themselves: the other sides' loaders and threads outlast their turns
    own: dict[str, Callable[[], object]] = {
        ours: partial(train_epoch, engine),
        bare: partial(_repeat, step, steps, device),
    }
    limit = tabulate(time_in_turns(own, 2 * repeats), items, ours=ours)
    print(limit.to_string(index=False))  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        pairs = write_pairs(dataset, Path(name))
        here, there = multiprocessing.Pipe()
        other = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(there, pairs, config, _channels(dataset), device_name, workers)
        )
        other.start()
        sides: dict[str, Callable[[], object]] = {
            ours: own[ours],
            "a plain PyTorch loop": partial(_ask, here, other, "plain"),
            "the same, channels_last and bf16": partial(_ask, here, other, "tuned"),
            "MONAI": partial(_ask, here, other, "monai"),
        }
        table = tabulate(time_in_turns(sides, repeats), items, ours=ours)
        here.send("end")
        other.join()
    judged: dict[str, Callable[[], object]] = {
        "brainseg train, validation": partial(validate, engine, network),
        "its network alone, squares in memory": build_bare_validation(engine, network, device),
    }
    seen = sum(map(len, engine.validation.batches))
    judging = tabulate(time_in_turns(judged, repeats), seen, ours=next(iter(judged)))
    print(table.to_string(index=False))  # noqa: T201
    print(judging.to_string(index=False))  # noqa: T201
    rates = limit.set_index("side")["items_per_s"]
    flops = count_flops(step) / config.train.batch_size
    peak = measure_products(device, DTYPES[precision])
    print(f"{flops / 1e9:.1f} GFLOP a slice, forward and backward; a matrix product reaches {peak / 1e12:.2f} TFLOP/s")  # noqa: T201
    for name in (ours, bare):
        print(f"{name}: {rates[name] * flops / peak:.1%} of it")  # noqa: T201
    minutes = GOAL_EPOCHS * GOAL_SLICES / rates[ours] / 60
    judged_minutes = GOAL_EPOCHS * judged_slices / judging["items_per_s"].iloc[0] / 60
    print(  # noqa: T201
        f"{GOAL_EPOCHS} epochs over {GOAL_SLICES} slices: {minutes:.1f} minutes, and {judged_minutes:.1f} to validate "
        f"on {judged_slices} after each"
    )
    versions = {
        each: version(each) for each in ("brainseg", "torch", "monai", "albumentations", "opencv-python-headless")
    }
    parts = {"against the limit": limit, "against others": table, "validation": judging}
    whole = pd.concat([part.assign(table=name) for name, part in parts.items()])
    whole = whole.assign(settings=about, gflop_per_slice=flops / 1e9, product_tflops=peak / 1e12)
    hardware = torch.cuda.get_device_name(device) if on_gpu else None
    print(write_results("train", whole, versions, hardware=hardware))  # noqa: T201


def choose_slices(dataset: Dataset, count: int) -> Dataset:
    """The dataset with `count` of its slices to train on, taken at random, and at most as many to validate on."""
    rng = np.random.default_rng(SEED)
    splits = np.full(len(dataset.slices), "", object)
    for split in ("train", "val"):
        rows = dataset.rows(split)
        splits[rng.permutation(rows)[:count]] = split
    return replace(dataset, slices=dataset.slices.assign(split=splits))


def write_pairs(dataset: Dataset, folder: Path) -> list[tuple[Path, Path]]:
    """The train slices as the TIFF files, image and mask, that the other sides read."""
    pairs = []
    for row in dataset.rows("train").tolist():
        image, mask = folder / f"{row:06d}.tif", folder / f"{row:06d}_mask.tif"
        write_image(image, np.ascontiguousarray(dataset.image(row)))
        write_image(mask, dataset.mask(row)[..., None] * np.uint8(255))
        pairs.append((image, mask))
    return pairs


def train_epoch(engine: Engine) -> None:
    """An epoch of the real loop, with all that it does at each step; reading its numbers waits for the device."""
    engine._train_epoch()
    engine.state.end_epoch()


def validate(engine: Engine, network: TorchNetwork) -> None:
    """What follows an epoch."""
    validation = engine.validation
    validation.summarise(validation.measure(network, validation.batches, threshold=THRESHOLD))


def build_bare_validation(engine: Engine, network: TorchNetwork, device: torch.device) -> Callable[[], None]:
    """The same batches through the network, already on the device as squares."""
    squares = engine.validation.squares
    batches = [
        torch.from_numpy(np.stack([squares.image(row) for row in rows.tolist()])).to(device)
        for rows in engine.validation.batches
    ]

    def forward() -> None:
        for pixels in batches:
            network.logits(pixels)
        wait(device)

    return forward


def build_bare_step(model: nn.Module, dataset: Dataset, config: Config, device: torch.device) -> Callable[[], None]:
    """Forward, loss, backward, optimiser on one synthetic batch: what no loader and no record can be faster than."""
    precision, size = choose_precision(config.train.precision, device), config.preprocess.size
    model = to_channels_last(model.to(device)).train()
    forward: Callable[[Tensor], Tensor] = torch.compile(model) if config.train.compile else model
    optimizer, loss = build_optimizer(model, config.optimizer), build_loss(config.loss)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    inputs = torch.randn(config.train.batch_size, _channels(dataset), size, size, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    reference = (torch.rand(config.train.batch_size, 1, size, size, device=device) > 0.98).float()

    def step() -> None:
        with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            logits = forward(inputs)
        scaler.scale(loss(logits.float(), reference)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def _configure(preset: str, image_size: int | None, encoder: str | None, batch_size: int | None) -> Config:
    given = {"preprocess.size": image_size, "model.encoder": encoder, "train.batch_size": batch_size}
    # every slice once, so that all sides do the same; the rate does not depend on which they are
    settings: dict[str, Any] = {"train.tumour_share": 0.0, "train.epochs": 1000, "augment.channel_copy": 0.0}
    return load_config(preset, overrides=settings | {key: value for key, value in given.items() if value is not None})


def _build(config: Config, dataset: Dataset) -> nn.Module:
    return build_model(config.model, _channels(dataset))


def _channels(dataset: Dataset) -> int:
    return len(dataset.info.channel_names)


def _repeat(step: Callable[[], None], times: int, device: torch.device) -> None:
    for _ in range(times):
        step()
    wait(device)


def _ask(connection: Connection, other: Any, what: str) -> None:
    connection.send(what)
    while not connection.poll(1):
        if not other.is_alive():
            raise RuntimeError(f"the process of the other sides ended in {what}")
    connection.recv()


def _serve(
    connection: Connection,
    pairs: Sequence[tuple[Path, Path]],
    config: Config,
    channels: int,
    device_name: str,
    workers: int,
) -> None:
    """The other sides in a process of their own, an epoch each time that one is asked for."""
    from benchmarks.train_baselines import build_monai_epoch, build_plain_epoch

    warnings.simplefilter("ignore")
    device = choose_device(device_name)

    def build() -> nn.Module:
        torch.manual_seed(SEED)
        return build_model(config.model, channels)

    epochs = {
        "plain": build_plain_epoch(build(), pairs, config, device, workers, tuned=False),
        "tuned": build_plain_epoch(build(), pairs, config, device, workers, tuned=True),
        "monai": build_monai_epoch(build(), pairs, config, device, workers),
    }
    while (what := connection.recv()) != "end":
        epochs[what]()
        wait(device)
        connection.send("done")
