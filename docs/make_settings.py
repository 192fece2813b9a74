"""Makes docs/settings.md from the program: `python docs/make_settings.py > docs/settings.md`. A test holds the two
together."""

import ast
import inspect
import json
import sys
from itertools import pairwise
from typing import Any

from brainseg_cli.config import Config, Section, list_presets, load_config

HEAD = """\
# Settings

What a run is made of. `brainseg train DATASET --set SECTION.KEY=VALUE` changes any of it, `--config FILE` takes a TOML
file with these sections and keys, and `config.toml` in the run has all of them as they were. Where several say
something the later one holds: preset, `--config`, environment, `--set`, and flags such as `--lr`, which stand for some
of the settings (`brainseg train --help`).

Made from the program by `docs/make_settings.py`. The values are those of the presets; an empty cell is as `default`.

"""
FIRST = "default"


def make_settings() -> str:
    """The whole page."""
    presets = [FIRST, *(name for name in list_presets() if name != FIRST)]
    configs = {name: load_config(name) for name in presets}
    parts = [HEAD]
    for section in Config.model_fields:
        kind = type(getattr(configs[FIRST], section))
        parts.append(f"## {section}\n\n{_unfold(kind.__doc__ or '')}\n\n")
        columns = ["setting", "may be", *presets, "what it does"]
        parts.append(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
        told, schema = _read_docstrings(kind), kind.model_json_schema()["properties"]
        for name in kind.model_fields:
            values = [_write(getattr(getattr(config, section), name)) for config in configs.values()]
            shown = [values[0], *("" if value == values[0] else value for value in values[1:])]
            parts.append(f"| `{name}` | {_describe(schema[name])} | {' | '.join(shown)} | {told[name]} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _read_docstrings(kind: type[Section]) -> dict[str, str]:
    """The text below each field, which Python itself does not keep."""
    (made,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(made, ast.ClassDef)
    told = {field.target.id: "" for field in made.body if isinstance(field, ast.AnnAssign)}  # type: ignore[union-attr]
    for field, below in pairwise(made.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            told[field.target.id] = _unfold(ast.literal_eval(below.value))  # type: ignore[union-attr]
    return told


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"{schema['minItems']} to {schema['maxItems']} counts"
    if schema["type"] in ("string", "boolean"):
        return {"string": "text", "boolean": "`true`, `false`"}[schema["type"]]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in schema else ""
    below = "below " if "exclusiveMaximum" in schema else ""
    whole = {"integer": "whole, "}.get(schema["type"], "")
    if "multipleOf" in schema:
        whole = f"multiples of {schema['multipleOf']}, "
    return f"{whole}{above}{low} to {below}{high}" if high is not None else f"{whole}{above or 'from '}{low}"


def _write(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _unfold(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(make_settings())
