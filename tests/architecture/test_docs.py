"""Every command and every option is in the reference, and every preset is one that can be trained with."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

from brainseg_cli.cli.app import app
from brainseg_cli.config import Config, list_presets, load_config

TOP = Path(__file__).parents[2]
REFERENCE = TOP / "docs" / "cli.md"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def read_sections() -> dict[str, str]:
    """The reference by command: the text below each heading `## brainseg <command>`."""
    parts = re.split(r"^## `?brainseg (\w+)`?$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def load_maker(name: str) -> ModuleType:
    """docs/NAME.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, TOP / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_the_programs() -> None:
    """Where this fails: python docs/make_reference.py > docs/cli.md"""
    assert REFERENCE.read_text(encoding="utf-8") == load_maker("make_reference").make_reference()


def test_the_settings_are_the_programs() -> None:
    """Where this fails: python docs/make_settings.py > docs/settings.md"""
    page = load_maker("make_settings").make_settings()
    assert (TOP / "docs" / "settings.md").read_text(encoding="utf-8") == page
    for section, part in Config():
        told = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
        for name in type(part).model_fields:
            (row,) = re.findall(rf"^\| `{name}` \|.*$", told, flags=re.MULTILINE)
            assert len(row.split(" | ")[-1]) > 10, f"{section}.{name} has no sentence"


def test_no_page_waits_to_be_filled_in() -> None:
    pages = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), TOP / "data" / "README.md"]
    assert len(pages) > 5
    assert [page.name for page in pages if "{{" in page.read_text(encoding="utf-8")] == []


def test_the_reference_has_the_commands_there_are() -> None:
    assert set(COMMANDS) == {"prepare", "train", "eval", "predict", "overlay", "export", "info"}
    assert set(read_sections()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_the_reference(command: str) -> None:
    section = read_sections()[command]
    wanted = {name for option in COMMANDS[command].params for name in option.opts if name.startswith("--")}
    assert wanted, command
    assert {name for name in wanted if not re.search(rf"(?<![\w-]){name}(?![\w-])", section)} == set()
    # and it speaks of none that is gone
    spoken = set(re.findall(r"^\* `(?:-\w, )?(--[\w-]+)", section, flags=re.MULTILINE))
    assert spoken - wanted <= {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    for option in COMMANDS[command].params:
        if option.param_type_name == "option":
            assert option.help, f"{command} {option.name}"


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_valid_and_reads_back(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert load_config("classic", path=path) == config
    assert isinstance(config, Config)


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_makes_a_network(name: str) -> None:
    import torch

    from brainseg_cli.models.build import build_model

    config = load_config(name)
    model = build_model(config.model, 3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_every_promise_names_a_test_there_is() -> None:
    """docs/reliability.md: `tests/....py::name`, and `::name` in the file named before it."""
    path, promises = "", 0
    for file, name in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", (TOP / "docs" / "reliability.md").read_text()):
        path = file or path
        assert f"\ndef {name}(" in (TOP / path).read_text(encoding="utf-8"), f"{path}::{name}"
        promises += 1
    assert promises > 40
