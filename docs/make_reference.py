"""Makes docs/cli.md from the program: `python docs/make_reference.py > docs/cli.md`. A test holds the two together."""

import html
import re
import sys
from collections import defaultdict
from typing import Any

import typer.main

from brainseg_cli.cli.app import app
from brainseg_cli.io.headers import MAX_PIXELS

HEAD = """\
# brainseg

{help}

Made from the program by `docs/make_reference.py`. `brainseg COMMAND --help` says the same. [The cookbook](cookbook.md)
has whole pipelines, [metrics.md](metrics.md) what every number means.

"""

TAIL = """\
## Streams

stdout carries data alone: paths, JSON lines, with `--json` one object, with `-o -` an image. Messages, tables and bars
go to stderr; bars are drawn on a terminal only, elsewhere a line comes now and then. `NO_COLOR` is honoured. `-q`
leaves warnings and errors, `-v` adds detail.

## Exit status

| code | meaning |
|---|---|
| 0 | done |
| 1 | could not be done, or a fault of the program |
| 2 | wrong usage |
| 3 | done in part: some inputs failed, each named |
| 4 | a gate was not met (`eval --fail-under`, `--fail-over`; `export --int8`) |
| 130 | interrupted, by SIGINT or SIGTERM |
| 141 | whoever read stdout closed it |

An error is one line on stderr: where, what, and what to do next. A traceback comes with `brainseg --debug` alone.

## Signals

SIGINT (Ctrl-C) and SIGTERM end a command with whole files only and a line that says how to go on: `--resume`, for
`train` and `predict`. A pipe that is closed early ends it too, and quietly. What a `kill -9` leaves half written has a
name that begins with a dot and ends in `.partial`; nothing reads it, and the command run again takes it away.

## One at a time

What a command writes it has alone: a second one that would write the same dataset, run, folder or file ends at once,
with exit code 1 and a line that says who is at it. Shards (`--shard`) write one folder side by side; whoever only
reads is never held up. The lock is a hidden file beside the output, gone at the end; a kill may leave the file, but
never the lock. It holds on one machine, and on a network disk as far as that passes locks on; on Windows there is
none.

## Disks

A disk that is full, read-only, broken or gone ends a command with exit code 1 and a line that names the place, what
to do and what to run then. What was there before is whole, and nothing half written stays where the disk still takes
it away.

## Order and names

Arguments come in natural order (2 before 10), and their tree is mirrored below what they share. A list keeps its own
order, and its paths are mirrored as they stand; `--relative-to` says otherwise. A result is never written over a file
that is to be read, no two results share a place, and none leaves its folder.

## Records

`predict` writes a line a slice: to stdout as it is done, and into `predictions.jsonl` beside the masks. What failed is
in `failures.jsonl` too, which is there as long as anything is. A share has files of its own
(`predictions-2-of-8.jsonl`; `cat masks/predictions-*.jsonl` is all of them). A run that goes on, or does some slices
again, replaces their lines and keeps the others.

| field | meaning |
|---|---|
| `image`, `mask` | paths, as given and as written; no mask where it failed |
| `patient_id`, `slice_index` | from the folder's and the file's name; null where they say none |
| `tumour`, `area_px`, `area_mm2` | whether any pixel is tumour, how many, and with `--spacing` their area |
| `max_prob`, `mean_prob` | largest probability of the slice; mean over the mask's pixels, null without any |
| `centroid_px`, `box_px` | [row, column]; [top, left, bottom, right], counted from 0, bottom and right not included |
| `entropy` | mean over all pixels of -p log2 p - (1-p) log2 (1-p), in bits |
| `disagreement` | of several models: 1 - mean dice of every two masks, before they are cleaned up; else null |
| `ood` | what is unlike the model's training: `channels`, `intensity`, `head`, `orientation`; [] where nothing is |
| `seconds`, `unchanged` | on stdout alone: per slice, of the network; true where `--resume` found it done |
| `status`, `error` | `ok`, or `failed` and why; `--dry-run` says `planned`, `unchanged` or `failed` |
| `provenance` | in `predictions.jsonl` and in the mask: hashes of image, models, mask and map; options; version |

`--resume` leaves a mask alone if image content, models and options are those it carries, and its pixels and its map
are as they were made, be it by another version of brainseg. A file that brainseg did not make is never replaced.

## Precedence

A flag, then the environment, then `--config` and `--set`, then the preset. The resolved configuration is written beside
the result.

## Shell completion

`brainseg --install-completion` installs it for the shell it is called from, `--show-completion` prints it.

## Environment

| variable | stands for |
|---|---|
{environment}
| `BRAINSEG_DEBUG` | `--debug` |
| `BRAINSEG_MAX_PIXELS` | the most pixels that an image may have, {pixels} unless told |
| `NO_COLOR` | no colours on stderr |
"""


def make_reference() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    environment: dict[str, set[str]] = defaultdict(set)
    parts = [HEAD.format(help=group.help)]
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        usage = context.get_usage().removeprefix("Usage: ").removeprefix("brainseg ").split(maxsplit=1)[1]
        parts.append(f"## brainseg {name}\n\n    brainseg {name} {usage}\n\n{_unfold(command.help)}\n")
        panels: dict[str, list[str]] = defaultdict(list)
        for parameter in command.params:
            shown, told = parameter.get_help_record(context)
            if parameter.param_type_name == "argument":
                shown = re.sub(r" <.*>$", "", shown)
            elif parameter.envvar:
                environment[str(parameter.envvar)].add(f"`{parameter.opts[-1]}`")
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels[parameter.rich_help_panel or kind].append(f"* `{_tidy(shown)}`: {_unfold(told)}")
        for panel in sorted(panels, key=("Arguments", "Options").__contains__, reverse=True):
            parts.append("\n".join([f"\n**{panel}**\n", *panels[panel], ""]))  # noqa: PERF401
        parts.append("\n")
    rows = [f"| `{name}` | {', '.join(sorted(options))} |" for name, options in sorted(environment.items())]
    return "".join(parts) + TAIL.format(environment="\n".join(rows), pixels=MAX_PIXELS)


def _tidy(shown: str) -> str:
    """`<list[Path]>` and `<int range>` are names of types, not of what to write."""
    for typed, written in {"list[Path]": "path", "list[str]": "text", "list[float]": "number", "str": "text"}.items():
        shown = shown.replace(f"<{typed}>", f"<{written}>")
    return shown.replace(" range>", ">").replace("<int>", "<integer>").replace("<float>", "<number>")


def _unfold(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in html.unescape(text).split("\n\n"))


if __name__ == "__main__":
    sys.stdout.write(make_reference())
