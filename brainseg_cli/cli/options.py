"""Options that several commands share: the same name for the same thing."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where the result goes.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", envvar="BRAINSEG_DEVICE")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Parallel readers.", envvar="BRAINSEG_WORKERS", show_default="by machine"),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", min=0.0, max=1.0, help="Least probability of tumour.", show_default="the model's"),
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
