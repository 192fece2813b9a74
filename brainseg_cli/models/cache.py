"""Exports kept for the next time: beside the bundle, or where that is read-only in the user's own cache."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brainseg_cli.errors import BrainsegError
from brainseg_cli.io.atomic import sync_file, sync_folder
from brainseg_cli.io.inputs import is_there
from brainseg_cli.models.built_in import is_built_in
from brainseg_cli.models.exported import import_runtime
from brainseg_cli.models.locate import Bundle
from brainseg_cli.models.metadata import seal
from brainseg_cli.models.mixed import MIXED

EXPORT_VERSION = 3
"""To be raised where `models.export`, `folded` or `mixed` changes what is written: older files are then made anew."""
ASIDE, ABANDONED_S = ".brainseg-export-", 24 * 3600
"""What is being written; after a day nobody is writing it any more."""
UNUSED_S = 90 * 24 * 3600
"""What nobody has opened for so long is removed from the user's cache, in which models come and go."""


def name_export(bundle: Bundle, runtime: str) -> str:
    """The file name of a bundle's export: a hash of network, weights and intensity scaling, and who runs it.

    An export was checked with one version of the runtime; the next one has another name.
    """
    version = import_runtime(runtime).__version__
    digest = hashlib.sha256(f"{EXPORT_VERSION} {version} {bundle.info.preprocess.model_dump_json()}".encode())
    for name in ("config.json", "model.safetensors"):
        digest.update(bytes.fromhex(bundle.sums[name]))
    return f"{digest.hexdigest()[:32]}.{runtime}.onnx"


def find_exports(folder: Path, name: str) -> list[Path]:
    """Where it lies, the bundle's own first; nothing where it was not made yet. That it was used today is noted."""
    found = [place / name for place in _list_places(folder) if is_there(place / name)]
    for path in found:
        with suppress(OSError):
            os.utime(path)
    return found


def write_export(bundle: Bundle, name: str, runtime: str) -> Path:
    """Export a bundle, in fp32, sealed, and check that `runtime` agrees with PyTorch about it.

    InputError for a bundle that cannot be loaded; BrainsegError where the network cannot be exported, they do not
    agree, or there is no place for the file.
    """
    from brainseg_cli.models.export import check_export, export_onnx, load_exact, measure_mixed, set_metadata

    exact = load_exact(bundle)
    reasons = []
    for place in _list_places(bundle.path):
        try:
            sweep(place)
            with write_aside(place) as aside:
                export_onnx(exact, aside / name)
                if runtime == "openvino":
                    set_metadata(aside / name, {MIXED: f"{measure_mixed(exact):.3g}"})
                seal(aside / name)
                check_export(exact, aside / name, runtime)
                move([aside / name], place)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
            continue
        if place.parent == bundle.path:
            _remove_older(place / name, runtime)
        else:
            _remove_unused(place)
        return place / name
    raise BrainsegError(f"there is no place to keep an export: {'; '.join(reasons)}")


@contextmanager
def write_aside(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for this writer alone, gone at the end: shards that begin together each make the file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=folder) as aside:
        yield Path(aside)


def move(files: list[Path], folder: Path) -> None:
    """Each to its name in `folder`, in the place of what is there, once all are on the disk."""
    for file in files:
        sync_file(file)
    for file in files:
        file.replace(folder / file.name)
    sync_folder(folder)


def _list_places(folder: Path) -> list[Path]:
    places = [] if is_built_in(folder) else [folder / "cache"]
    with suppress(RuntimeError):  # a user without a home
        places.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brainseg")
    return places


def sweep(place: Path) -> None:
    """What a kill left behind in a cache of ours is removed once it is old."""
    for left in place.glob(f"{ASIDE}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left)


def _remove_unused(place: Path) -> None:
    for path in place.glob("*.onnx"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNUSED_S:
                path.unlink()


def _remove_older(path: Path, runtime: str) -> None:
    """Of a bundle that was trained again, what was made of it before."""
    for older in path.parent.glob(f"*.{runtime}.onnx"):
        if older != path:
            with suppress(OSError):
                older.unlink()
