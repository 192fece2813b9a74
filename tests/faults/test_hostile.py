"""What a stranger's files may try, by the real command line: what is told of it, and that it came to nothing."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg_cli.data.phantom import patient_name

Brainseg = Callable[..., Any]
EVIL = """<img src=x onerror=alert(1)>'"&"""


class Trap:
    """A pickle that would run code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "sprung")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that would be there if code had run; below the working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here" / "sprung"


def refuse(outcome: Any, told: str, code: int = 1) -> None:
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err and "Traceback" not in outcome.err and "a fault of brainseg" not in outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1


def test_a_pickle_is_no_model(brainseg: Brainseg, phantom: Path, run: Path, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(pickle.dumps(Trap(mark)))
    refuse(
        brainseg("predict", phantom, "-m", tmp_path / "m.pt", "-q"), "m.pt: is not loaded: a file of this kind can run"
    )
    model = Path(shutil.copytree(run / "model", tmp_path / "model", ignore=shutil.ignore_patterns("cache")))
    (model / "model.safetensors").write_bytes(pickle.dumps(Trap(mark)))
    refuse(brainseg("predict", phantom, "-m", model, "-q"), "model.safetensors: is not as it was written")
    command = ("predict", phantom, "-m", model, "-q", "--no-verify", "--runtime", "torch", "--device", "cpu")
    refuse(brainseg(*command), "model.safetensors: is no safetensors file")
    assert not mark.exists()


def test_a_pickle_is_no_state(brainseg: Brainseg, run: Path, mark: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"schema_version": 1, "model": Trap(mark)}, buffer)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for path in (copy / "state").iterdir():
        path.write_bytes(buffer.getvalue())
    outcome = brainseg("train", "--resume", "-o", copy, "-q", "--device", "cpu")
    assert outcome.code == 1 and "state" in outcome.err and "Traceback" not in outcome.err
    assert not mark.exists()


def test_entries_of_a_zip_that_lead_out(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("PHANTOM_AA_0001/link.tif")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in phantom.rglob("*.tif"):
            archive.write(path, path.relative_to(phantom))
        archive.writestr("../../evil.tif", b"x")
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    outcome = brainseg("prepare", tmp_path / "a.zip", "-o", tmp_path / "out" / "d", "-q")
    assert outcome.code == 1 and outcome.out == ""
    assert "a.zip/../../evil.tif: its name leads out of the archive" in outcome.err
    assert "link.tif: is a link or a device, not a file" in outcome.err
    assert sorted(tmp_path.rglob("*")) == before
    assert brainseg("prepare", tmp_path / "a.zip", "-o", tmp_path / "out" / "d", "-q", "--skip-bad").code == 3
    assert not (tmp_path.parent / "evil.tif").exists()


def test_a_zip_bomb(brainseg: Brainseg, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"p/p_{number}.tif", bytes(20_000_000))
    told = "times its size, more than 100 (--max-zip-ratio raises the bound)"
    refuse(brainseg("prepare", tmp_path / "bomb.zip", "-o", tmp_path / "d", "-q"), told)


def test_names_of_records_never_leave_the_folder(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    patient = patient_name(3)
    image, mask = (phantom / patient / f"{patient}_1{end}.tif" for end in ("", "_mask"))
    record = '{"image": "%s", "mask": "%s", "patient_id": "%s", "slice_index": 1, "status": "ok"}\n'
    out = tmp_path / "deep" / "out"
    for name in ("../../evil", "/evil", "..", "a/../../evil"):
        (tmp_path / "r.jsonl").write_text(record % (image, mask, name))
        outcome = brainseg("overlay", "--from-jsonl", tmp_path / "r.jsonl", "-o", out, "--name", "{patient_id}/x", "-q")
        assert outcome.code in (1, 2) and "would leave the folder" in outcome.err
    (tmp_path / "r.jsonl").write_text(record % (image, mask, "n" * 400))
    outcome = brainseg("overlay", "--from-jsonl", tmp_path / "r.jsonl", "-o", out, "--name", "{patient_id}", "-q")
    assert outcome.code == 1 and "File name too long" in outcome.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "r.jsonl"]


def test_links_within_the_output_do_not_lead_out(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / patient_name(3)).symlink_to(elsewhere)
    outcome = brainseg("overlay", phantom, "--masks", phantom, "-o", out, "-q")
    refuse(outcome, f"a link leads out of {out}", code=2)
    assert list(elsewhere.iterdir()) == []


class Tags(HTMLParser):
    """Which elements there are, and which attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.images, self.handlers = 0, 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" and ("type", "application/json") not in attrs
        self.images += tag == "img" and not any((value or "").startswith("data:") for _, value in attrs)
        self.handlers += sum(name.startswith("on") for name, _ in attrs)


def test_a_report_of_hostile_names_is_text(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    """Of a patient, a file, a column and a value of the metadata, and the folder itself."""
    references = tmp_path / f"r{EVIL}"
    for number, patient in enumerate((patient_name(3), patient_name(4))):
        folder = references / f"{number}{EVIL}"
        folder.mkdir(parents=True)
        for path in (phantom / patient).glob("*_mask.tif"):
            shutil.copy(path, folder / f"{EVIL}{path.name}")
    quoted = EVIL.replace('"', '""')
    rows = [f'"{number}{quoted}","{quoted}{number}"' for number in range(2)]
    (tmp_path / "m.csv").write_text("\n".join([f'patient,"{quoted}"', *rows]) + "\n")
    out = tmp_path / "report"
    command = ("eval", "--reference", references, "--prediction", references, "--metadata", tmp_path / "m.csv")
    outcome = brainseg(*command, "-o", out, "-q")
    assert outcome.code == 0, outcome.err
    page = (out / "report.html").read_text()
    assert "onerror" in page  # as text
    tags = Tags()
    tags.feed(page)
    assert (tags.scripts, tags.images, tags.handlers) == (1, 0, 0)


@pytest.mark.parametrize("verb", ["prepare", "predict"])
def test_an_output_that_is_a_link_to_itself_is_told(
    verb: str, brainseg: Brainseg, phantom: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    model = ["-m", run, "--device", "cpu"] if verb == "predict" else []
    ended = brainseg(verb, phantom, *model, "-o", tmp_path / "loop", "-q")
    (told,) = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    assert ended.code == 1 and told.startswith(f"error: {tmp_path / 'loop'}: "), ended
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
