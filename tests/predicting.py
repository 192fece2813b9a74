"""Segmenting in tests: by the network of the `run` fixture, or by none, where an image says itself what its mask is."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import write_image
from brainseg_cli.io.sources import Request, open_inputs
from brainseg_cli.models.ensemble import Ensembled
from brainseg_cli.predict.plan import Places, Plan, make_plan
from brainseg_cli.predict.settings import Settings
from brainseg_cli.types import Image, Json, Runtime


class Painted:
    """In place of an ensemble: the first channel of an image, 255 being 1, is its probability of tumour."""

    batch_size = 4
    described = "painted"

    def prepare(self, image: Image) -> list[Image]:
        if image.shape[2] != 3:
            raise InputError(f"an image of {image.shape[2]} channels, the model takes 3")
        return [image]

    def submit(self, prepared: Sequence[list[Image]], *, tta: str = "none") -> Callable[[], list[Ensembled]]:
        painted = [image[..., 0].astype(np.float32) / 255 for (image,) in prepared]
        return lambda: [Ensembled(probs, [probs]) for probs in painted]

    def cancel(self) -> None:
        """What was begun is done."""

    def find_unlike(self, image: Image) -> list[str]:
        """Nothing."""
        return []


def make(
    model: Path | Sequence[Path], out: Path | None, *inputs: Path | str, stdin: bytes = b"", **options: Any
) -> Plan:
    """A plan; `options` are those of Request, Places and Settings."""

    def take(kind: type) -> dict[str, Any]:
        return {field.name: options[field.name] for field in fields(kind) if field.name in options}

    assert options.keys() <= take(Request).keys() | take(Places).keys() | take(Settings).keys()
    found = open_inputs(Request(tuple(map(str, inputs)), **take(Request)), io.BytesIO(stdin))
    models = [model] if isinstance(model, Path) else model
    return make_plan(found, models, Places(out, **take(Places)), Settings(**take(Settings)))


def paint(plan: Plan, batch_size: int = 4) -> Iterator[Any]:
    """`run` by Painted."""
    from brainseg_cli.predict.run import run

    return run(plan, Painted(), batch_size=batch_size)  # type: ignore[arg-type]


def segment(plan: Plan, batch_size: int = 16, device: str = "cpu", runtime: Runtime = "torch") -> list[Any]:
    """`run` by the plan's own models."""
    from brainseg_cli.models.ensemble import open_ensemble
    from brainseg_cli.models.runtimes import Choice
    from brainseg_cli.predict.run import run

    return list(run(plan, open_ensemble(plan.bundles, Choice(runtime, device)), batch_size=batch_size))


def records(outcomes: Sequence[Any]) -> list[Json]:
    return [outcome.record for outcome in outcomes]


def draw(path: Path, *boxes: tuple[int, int, int, int], size: tuple[int, int] = (12, 16)) -> None:
    """An image whose Painted mask is these boxes: top, left, bottom, right."""
    image = np.zeros((*size, 3), np.uint8)
    for top, left, bottom, right in boxes:
        image[top:bottom, left:right] = 255
    write_image(path, image)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(name for name in tree(folder) if not name.endswith(".jsonl"))
