"""The house: layers, lazy imports, short modules."""

import subprocess
import sys
from pathlib import Path

import pytest

import brainseg_cli

ROOT = Path(__file__).parents[2]
PACKAGE = Path(brainseg_cli.__file__).parent


def test_every_import_goes_down() -> None:
    """The contracts of [tool.importlinter] in pyproject.toml."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(script), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import brainseg_cli; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["brainseg_cli"]


@pytest.mark.parametrize(
    ("library", "owner"),
    [("segmentation_models_pytorch", "models/build.py"), ("albumentations", "augment.py")],
)
def test_a_library_has_one_importer(library: str, owner: str) -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith((f"import {library}", f"from {library}"))
    }
    assert importers == {owner}


def test_no_module_is_longer_than_it_can_be_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert len(lengths) > 40
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}


def test_no_room_for_odds_and_ends() -> None:
    forbidden = {"utils", "util", "helpers", "common", "manager", "misc"}
    assert {path.stem for path in PACKAGE.rglob("*")} & forbidden == set()


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if (text := path.read_text(encoding="utf-8")).strip() and not text.startswith('"""')
    ]
    assert silent == []
