"""Files to masks: `brainseg predict` beside the bare network, a plain PyTorch loop and MONAI, on the same weights."""

import io
import itertools
import multiprocessing
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli import __version__
from brainseg_cli.config import load_config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.io.images import read_mask, write_image
from brainseg_cli.io.sources import Request, open_inputs
from brainseg_cli.metrics.counts import compute_counts, dice
from brainseg_cli.models.ensemble import Ensemble, load_ensemble
from brainseg_cli.models.exported import computes_bf16
from brainseg_cli.models.locate import BundleInfo, find_bundle, read_info
from brainseg_cli.models.runtimes import Choice
from brainseg_cli.predict.plan import Places, make_plan
from brainseg_cli.predict.run import run as run_plan
from brainseg_cli.predict.settings import Settings

SEED = 0
BARE = "the bare network, slices in memory"
TUMOUR_SHARE = 0.02
"""Of the pixels: what an untrained network is made to find, so that masks are not empty."""


def run(
    data: Path, repeats: int, *, model: Path | None, preset: str, slices: int, choice: Choice, workers: int
) -> None:
    """Print the table and write it. `model` None makes an untrained network of `preset`."""
    dataset = load_dataset(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_slices(dataset, folder / "images", slices)
        bundle = find_bundle(model) if model is not None else make_bundle(dataset, preset, folder / "model")
        _run(folder, images, bundle, repeats, choice, workers, preset if model is None else bundle.parent.name)


def _run(
    folder: Path, images: Sequence[Path], bundle: Path, repeats: int, choice: Choice, workers: int, name: str
) -> None:
    ensemble = load_ensemble([bundle], choice, tell=print)
    exact = [ensemble.prepare(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)) for path in images]

    def ours(used: Ensemble, out: Path) -> None:
        inputs = open_inputs(Request((str(images[0].parent),)), io.BytesIO())
        plan = make_plan(inputs, [bundle], _place(out), Settings())
        failed = [found.record for found in run_plan(plan, used) if found.record["status"] != "ok"]
        assert not failed, failed[0]

    (network,) = [member.segmenter.network for member in ensemble.members]
    squares = [prepared[0].square for prepared in exact]
    stacks = [np.stack(squares[at : at + network.batch_size]) for at in range(0, len(squares), network.batch_size)]
    blank = sum(not square.any() for square in squares)

    def bare() -> None:
        before = None
        for pixels in stacks:
            pending = network.submit(pixels)  # the next is begun before the last is waited for
            if before is not None:
                before()
            before = pending
        assert before is not None
        before()

    here, there = multiprocessing.Pipe()
    asked = (images, bundle, folder, choice.device, workers)
    other = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, *asked))
    other.start()

    def ask(what: str) -> None:
        here.send(what)
        here.recv()

    own = f"brainseg predict ({ensemble.described})"
    sides: dict[str, Callable[[], object]] = {
        own: partial(ours, ensemble, folder / "ours"),
        BARE: bare,
        "a plain PyTorch loop": partial(ask, "plain"),
        "MONAI": partial(ask, "monai"),
    }
    made = ["ours"]
    if choice.precision == "auto" and ensemble.described.startswith("openvino") and computes_bf16():
        for precision in ("fp32", "bf16"):
            other_way = load_ensemble([bundle], replace(choice, precision=precision), tell=print)
            sides[f"brainseg predict --precision {precision}"] = partial(ours, other_way, folder / precision)
            made.append(precision)
    table = tabulate(time_in_turns(sides, repeats), len(images), ours=own)
    here.send("end")
    other.join()
    for one, side in itertools.product(made, ("plain", "monai")):
        print(f"dice of our masks ({one}) and those of {side}: {_compare(folder / one, folder / side):.5f}")  # noqa: T201
    info = read_info(bundle)
    print(f"{len(images)} slices, {blank} of them blank, {name} at {info.preprocess.size} px")  # noqa: T201
    print(table.to_string(index=False))  # noqa: T201
    flops, peak, hardware = measure_limit(bundle, choice.device, ensemble.described)
    print(f"{flops / 1e9:.1f} GFLOP a slice; a matrix product by PyTorch reaches {peak / 1e12:.2f} TFLOP/s")  # noqa: T201
    for side in (own, BARE):
        rate = table.set_index("side")["items_per_s"][side]
        note = ", which is of fp32" if "mixed" in ensemble.described else ""
        print(f"{side}: {rate * flops / peak:.1%} of it{note}")  # noqa: T201
    versions = {each: version(each) for each in ("brainseg", "torch", "openvino", "monai")}
    table.insert(1, "network", f"{name} {info.preprocess.size}")
    table = table.assign(gflop_per_slice=flops / 1e9, product_tflops=peak / 1e12)
    print(write_results(f"predict-{name}", table, versions, hardware=hardware))  # noqa: T201


def measure_limit(bundle: Path, device_name: str, described: str) -> tuple[float, float, str | None]:
    """FLOPs of a slice, FLOP/s of products in the precision that is `described` (mixed: fp32), and the GPU's name.

    On a CPU those of the network as it is exported.
    """
    import torch

    from benchmarks.chip import DTYPES, count_flops, measure_products
    from brainseg_cli.models.bundle import load_bundle
    from brainseg_cli.models.devices import choose_device
    from brainseg_cli.models.folded import fold

    model, info = load_bundle(bundle)
    shape = (len(info.channel_names), info.preprocess.size, info.preprocess.size)
    model = model.eval() if "torch" in described else fold(model, shape)
    with torch.inference_mode():
        flops = count_flops(lambda: model(torch.zeros(1, *shape)))
    device = choose_device(device_name if "cuda" in described else "cpu")
    dtype = next((DTYPES[word] for word in described.split() if word in DTYPES), DTYPES["fp32"])
    return flops, measure_products(device, dtype), torch.cuda.get_device_name(device) if device.type == "cuda" else None


def write_slices(dataset: Dataset, folder: Path, count: int) -> list[Path]:
    """The first `count` slices of a dataset as TIFF files in one folder, from its start again where it has fewer."""
    paths = []
    for number in range(count):
        row = number % len(dataset.slices)
        paths.append(folder / f"slice_{number:06d}.tif")
        write_image(paths[-1], dataset.image(row))
    return paths


def make_bundle(dataset: Dataset, preset: str, folder: Path) -> Path:
    """An untrained network of a preset, its norms settled on real slices, its threshold where few pixels are above."""
    import torch

    from brainseg_cli.models.build import build_model
    from brainseg_cli.models.bundle import save_bundle, write_info
    from brainseg_cli.models.network import TorchNetwork, prepare_input
    from brainseg_cli.models.segmenter import Segmenter

    config = load_config(preset)
    preprocess = config.preprocess.model_copy(update={"crop": "none"})  # the other sides know no head
    channels = dataset.info.channel_names
    torch.manual_seed(SEED)
    model = build_model(config.model, len(channels))
    segmenter = Segmenter(TorchNetwork(model, preprocess, len(channels), torch.device("cpu")))
    some = [dataset.image(row) for row in np.linspace(0, len(dataset.slices) - 1, 16).astype(int)]
    pixels = torch.from_numpy(np.stack([segmenter.prepare(image).square for image in some]))
    model.train()
    with torch.no_grad():
        for _ in range(10):
            model(prepare_input(pixels, preprocess, torch.device("cpu")))
    model.eval()
    info = BundleInfo(
        brainseg_version=__version__,
        torch_version=version("torch"),
        preprocess=preprocess,
        channel_names=channels,
        encoder_weights="none",
        dataset_hash=dataset.info.content_hash,
        split="none",
        split_hash="none",
        leaky=False,
        epoch=0,
        val_dice_patient=None,
    )
    save_bundle(folder, model, info)
    threshold = float(np.quantile(np.concatenate([p.ravel() for p in segmenter.predict_probs(some)]), 1 - TUMOUR_SHARE))
    write_info(folder, info.model_copy(update={"threshold": threshold}))
    return folder


def _place(folder: Path) -> Places:
    shutil.rmtree(folder, ignore_errors=True)
    return Places(folder)


def _compare(ours: Path, theirs: Path) -> float:
    counts = [compute_counts(read_mask(path), read_mask(theirs / path.name)) for path in sorted(ours.glob("**/*.png"))]
    tp, fp, fn, _ = np.sum(counts, axis=0)
    return float(dice(tp, fp, fn))


def _serve(
    connection: Connection, images: Sequence[Path], bundle: Path, folder: Path, device: str, workers: int
) -> None:
    """The plain loop and MONAI in a process of their own, as often as each is asked for."""
    import torch

    from benchmarks.baselines import segment_plainly, segment_with_monai
    from brainseg_cli.models.bundle import load_bundle
    from brainseg_cli.models.devices import choose_device

    warnings.simplefilter("ignore")
    model, info = load_bundle(bundle)
    where = choose_device(device)
    model = model.to(where).eval()
    sides = {"plain": segment_plainly, "monai": segment_with_monai}
    while (what := connection.recv()) != "end":
        shutil.rmtree(folder / what, ignore_errors=True)
        (folder / what).mkdir()
        with torch.inference_mode():
            sides[what](model, info, images, folder / what, where, workers)
        connection.send("done")
