"""Options that several commands share: the same name for the same thing."""

import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from brainseg_cli.errors import UsageError
from brainseg_cli.types import Runtime

if TYPE_CHECKING:
    from brainseg_cli.io.sources import Request

Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where the result goes.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", envvar="BRAINSEG_DEVICE")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Parallel readers and writers.", envvar="BRAINSEG_WORKERS", show_default="by machine"
    ),
]
RuntimeOption = Annotated[
    Runtime,
    typer.Option(
        "--runtime",
        help="What runs the network; auto: PyTorch on a GPU, on a CPU OpenVINO, else ONNX Runtime, else PyTorch.",
        envvar="BRAINSEG_RUNTIME",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", min=0.0, max=1.0, help="Least probability of tumour.", show_default="the model's"),
]
NoVerify = Annotated[
    bool,
    typer.Option("--no-verify", help="Do not hold models and datasets against the checksums they were written with."),
]
PatientRegex = Annotated[
    str | None,
    typer.Option(
        "--patient-regex", help="Finds the patient in a relative file name; its first group.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.", envvar="BRAINSEG_QUIET")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="More detail.", envvar="BRAINSEG_VERBOSE")]

Images = Annotated[
    list[str] | None,
    typer.Argument(help="Images: files, folders (searched through), globs; - is one on stdin.", metavar="INPUT"),
]
_INPUTS, _OUTPUTS = "Which images", "Where results go"
FilesFrom = Annotated[
    str | None,
    typer.Option(
        help="A list of images, one a line; - reads it from stdin as it comes.",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_INPUTS,
    ),
]
Files0From = Annotated[
    str | None,
    typer.Option(
        "--files0-from",
        help="The same with a NUL after each, as find -print0 writes it.",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_INPUTS,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Of folders, globs and lists, only what matches: 'TCGA_DU*/*'. May be repeated.",
        metavar="GLOB",
        show_default=False,
        rich_help_panel=_INPUTS,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Of folders, globs and lists, nothing that matches. May be repeated.",
        metavar="GLOB",
        show_default=False,
        rich_help_panel=_INPUTS,
    ),
]
RelativeTo = Annotated[
    Path | None,
    typer.Option(
        help="The folder below which inputs are mirrored.",
        show_default="what the inputs share; a list: as it stands",
        rich_help_panel=_INPUTS,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="One share of the inputs, 2/8 the second of eight: by name, so that shares are disjoint and complete.",
        metavar="K/N",
        show_default=False,
        rich_help_panel=_INPUTS,
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--name",
        help="Names results, without their suffix: {stem}, {name}, {patient_id}, {slice_index}, {slice_index:03d}; "
        "with a / it stands for the folders too.",
        rich_help_panel=_OUTPUTS,
    ),
]
FailFast = Annotated[
    bool,
    typer.Option("--fail-fast/--keep-going", help="Stop at the first input that fails, or do the rest."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


Spacing = Annotated[
    str | None,
    typer.Option(
        metavar="ROW,COLUMN,SLICE",
        help="Millimetres between neighbouring rows, columns and slices: areas in mm2 too.",
        show_default=False,
        rich_help_panel=_OUTPUTS,
    ),
]


def parse_spacing(text: str) -> tuple[float, float, float]:
    """`0.94,0.94,5`. UsageError for other than three positive numbers."""
    try:
        row, column, depth = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--spacing {text!r} is not ROW,COLUMN,SLICE", hint="for example 0.94,0.94,5") from None
    if not all(0 < step < math.inf for step in (row, column, depth)):
        raise UsageError(f"a spacing of {(row, column, depth)} mm is not possible", hint="three numbers above 0")
    return row, column, depth


def request_inputs(
    images: list[str] | None,
    *,
    files_from: str | None,
    files0_from: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    relative_to: Path | None,
    shard: str | None,
    whole_folders: bool = False,
) -> "Request":
    """What these options ask for."""
    from brainseg_cli.io.sources import Request, parse_shard

    return Request(
        tuple(images or ()),
        files_from,
        files0_from,
        tuple(include or ()),
        tuple(exclude or ()),
        relative_to,
        None if shard is None else parse_shard(shard),
        whole_folders,
    )


def open_stdin() -> BinaryIO:
    """Standard input, empty where it was closed; unbuffered: to end while a thread waits in a buffer is a crash."""
    buffer: BinaryIO = io.BytesIO() if sys.stdin is None else sys.stdin.buffer
    return getattr(buffer, "raw", buffer)
