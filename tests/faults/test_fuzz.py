"""Files that were changed at random, by every reader: refused in one line or read, never a crash, a hang or a fault."""

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bundle_sample import about
from faults.mutate import WAYS, mutate

from brainseg_cli.io.embedded import encode_mask, encode_probs
from brainseg_cli.io.images import encode_image, read_image, read_mask
from brainseg_cli.models.metadata import seal

MOST_S = 30
KINDS = {
    "image": 250, "mask": 150, "map": 150, "array": 150, "note": 150, "zip": 250, "dataset": 120,
    "dataset unverified": 120, "slices table": 120, "split table": 100, "metadata table": 120, "config": 150,
    "bundle": 120, "bundle unverified": 150, "exported": 150, "records": 120, "state": 150,
}  # fmt: skip
"""How many mutants of each kind are read by the slow test; the plain one reads a sixth."""
SEALED = ("dataset", "bundle", "exported", "state")
"""Kinds of which a change is never accepted: their checksums tell."""


class Reader:
    """The program `reading`, begun anew where it came to an end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def read(self, kind: str, path: Path) -> str:
        """What became of it: `accepted`, `refused ...`, `fault ...`, `crash` or `hang`."""
        if self._process is None:
            self._begin()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{kind}\t{path}\n")
        self._process.stdin.flush()
        try:
            told = self._lines.get(timeout=MOST_S)
        except queue.Empty:
            told = "hang"
        if not told or told == "hang":
            self.close()
        return told or "crash"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _begin(self) -> None:
        program = Path(__file__).with_name("reading.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines = queue.Queue()
        threading.Thread(target=_forward, args=(self._process, self._lines), daemon=True).start()
        self._lines.get()  # it is ready


def _forward(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put("")


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    program = Reader()
    yield program
    program.close()


@pytest.fixture(scope="module")
def seeds(phantom: Path, dataset: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Whole files of each kind; of a folder the file in it that is changed. Real slices too, where they are."""
    folder = tmp_path_factory.mktemp("seeds")
    slices = sorted(phantom.glob("*/*_1.tif")) + sorted(_real())[:6]
    masks = [path.with_name(f"{path.stem}_mask.tif") for path in slices]
    images, notes, maps = [], [], []
    for at, path in enumerate(slices):
        for suffix in (".png", ".jpg", ".tif"):
            images.append(folder / f"{at}{suffix}")
            images[-1].write_bytes(encode_image(read_image(path), suffix))
    for at, path in enumerate(masks):
        mask = read_mask(path)
        for suffix in (".png", ".tif"):
            notes.append(folder / f"note{at}{suffix}")
            notes[-1].write_bytes(encode_mask(mask, suffix, {"a": [1, 2.5, "x"]}))
        maps.append(folder / f"map{at}.png")
        maps[-1].write_bytes(encode_probs(mask.astype(np.float32), ".png", {}))
    np.save(folder / "map.npy", read_mask(masks[0]).astype(np.float32))
    with zipfile.ZipFile(folder / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (*slices[:3], *masks[:3]):
            archive.write(path, f"{path.parent.name}/{path.name}")
    texts = {
        "split.csv": "patient_id,split\na,train\nb,test\n",
        "data.csv": "patient,sex,age\na,M,40\nb,F,50\n",
        "config.toml": (run / "config.toml").read_text(),
        "records.jsonl": "".join(
            json.dumps(
                {"image": f"p/p_{n}.tif", "mask": f"m/p_{n}.png", "patient_id": "p", "slice_index": n, "status": "ok"}
            )
            + "\n"
            for n in range(5)
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    said = json.dumps(about().model_dump(mode="json")).encode()
    entry = b"\x0a\x08brainseg\x12" + bytes([len(said) & 127 | 128, len(said) >> 7]) + said
    graph = b"\x3a\x08" + bytes(8) + b"\x72" + bytes([len(entry) & 127 | 128, len(entry) >> 7]) + entry
    (folder / "m.onnx").write_bytes(graph)
    seal(folder / "m.onnx")
    model = run / "model"
    parts = [dataset / name for name in ("dataset.json", "slices.csv", "images.npy", "masks.npy")]
    return {
        "image": images, "mask": [*masks, *notes], "map": maps, "array": [folder / "map.npy"], "note": notes,
        "zip": [folder / "whole.zip"], "dataset": parts[1:], "dataset unverified": parts,
        "slices table": [parts[1]], "split table": [folder / "split.csv"], "metadata table": [folder / "data.csv"],
        "config": [folder / "config.toml"], "bundle": [model / "config.json", model / "model.safetensors"],
        "bundle unverified": [model / name for name in ("brainseg.json", "config.json", "model.safetensors")],
        "exported": [folder / "m.onnx"], "records": [folder / "records.jsonl"],
        "state": [next((run / "state").glob("last*"))],
    }  # fmt: skip


def _real() -> list[Path]:
    folder = Path(os.environ.get("BRAINSEG_LGG", Path(__file__).parents[3] / "shared" / "lgg" / "kaggle_3m"))
    return [path for path in folder.glob("TCGA_CS_*/*_1?.tif") if not path.stem.endswith("_mask")]


def read_mutants(
    kind: str, count: int, seeds: list[Path], reader: Reader, folder: Path
) -> tuple[Counter[str], list[str]]:
    """How many were refused and accepted, and a line for each that was neither, or should have been refused."""
    rng = random.Random(kind)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        seed = seeds[number % len(seeds)]
        whole = seed.read_bytes()
        data = mutate(whole, rng)
        place = folder / f"{number}"
        if kind.startswith(("dataset", "bundle")):
            shutil.copytree(seed.parent, place, ignore=shutil.ignore_patterns("cache"))
            (place / seed.name).write_bytes(data)
        else:
            place = place.with_suffix(seed.suffix)
            place.write_bytes(data)
        before = sorted(folder.rglob("*"))
        told = reader.read(kind, place)
        outcomes[told.partition(" ")[0]] += 1
        sound = told.startswith("refused ") or (told == "accepted" and (kind not in SEALED or data == whole))
        if not sound:
            wrong.append(f"{kind}, mutant {number} of {seed}: {told}")
        assert sorted(folder.rglob("*")) == before  # to read leaves nothing behind
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    return outcomes, wrong


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_accepted(kind: str, seeds: dict[str, list[Path]], reader: Reader) -> None:
    """Else all that is refused below would be refused for nothing."""
    for seed in seeds[kind]:
        assert reader.read(kind, seed.parent if kind.startswith(("dataset", "bundle")) else seed) == "accepted"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_mutants(kind: str, seeds: dict[str, list[Path]], reader: Reader, tmp_path: Path) -> None:
    outcomes, wrong = read_mutants(kind, KINDS[kind] // 6, seeds[kind], reader, tmp_path)
    assert wrong == []
    assert outcomes.total() == KINDS[kind] // 6


@pytest.mark.slow
def test_more_than_two_thousand_mutants(
    seeds: dict[str, list[Path]], reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table that is printed says for each kind how many were tried, refused in one line, and accepted."""
    faults, total = [], 0
    with capsys.disabled():
        for kind, count in KINDS.items():
            (tmp_path / kind).mkdir()
            outcomes, wrong = read_mutants(kind, count, seeds[kind], reader, tmp_path / kind)
            faults += wrong
            total += count
            row = f"{count:5} tried {outcomes['refused']:5} refused {outcomes['accepted']:5} accepted"
            sys.stdout.write(f"\n{kind:20} {row}")
    assert faults == []
    assert total > 2000


@pytest.mark.parametrize("way", sorted(set(WAYS), key=lambda way: way.__name__))
def test_mutants_are_a_matter_of_the_generator_alone(way: Callable[[bytes, random.Random], bytes]) -> None:
    data = bytes(range(256)) * 2
    assert way(data, random.Random(3)) == way(data, random.Random(3)) != data


def test_a_crash_a_hang_and_a_fault_are_seen_as_such(
    reader: Reader, seeds: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = seeds["image"][0]
    assert reader.read("crash", tmp_path) == "crash" and reader.read("image", whole) == "accepted"
    assert "ZeroDivisionError" in reader.read("fault", tmp_path) and reader.read("image", whole) == "accepted"
    monkeypatch.setattr(sys.modules[__name__], "MOST_S", 1)
    assert reader.read("hang", tmp_path) == "hang"
