"""brainseg export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.options import AsJson, NoVerify, Overwrite, Quiet, Verbose
from brainseg_cli.errors import EXIT_GATE
from brainseg_cli.types import ExportFormat

if TYPE_CHECKING:
    from brainseg_cli.export import Exported


def export_command(
    run: Annotated[Path, typer.Argument(help="What `brainseg train` wrote, or its model/ folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file, or a folder for it.", show_default=False)],
    form: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            help="ONNX (.onnx), OpenVINO (.xml and .bin), TorchScript (.pt), or a torch.export program (.pt2).",
            show_default="by the ending of -o, else onnx",
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Convolutions in 8 bits, for a CPU; only if that costs val less than 0.002 of dice."
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="A dataset, to compare on its val slices; --int8 needs one.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model as one file: for other programs and, where it is .onnx or .xml, for `predict -m`.

    The file says of itself what is to be done outside (crop, size, threshold); intensity scaling is inside. It is read
    again and held against PyTorch in fp32, and with --data measured on val beside it: where they do not agree nothing
    is written. `predict -m FILE` may multiply in bf16 all the same, as its --precision says. The network is arranged
    for a CPU. Prints the file's path. Exit code 4: int8 costs too much dice, and nothing was written.
    """
    console = Console(quiet=quiet, verbose=verbose)
    from brainseg_cli import export as use_case

    with console.progress() as progress:
        exported = use_case.export(
            run,
            out,
            form=form,
            int8=int8,
            dataset_path=data,
            overwrite=overwrite,
            verify=not no_verify,
            progress=progress,
        )
    print_exported(console, exported)
    if as_json:
        emit_json(exported.to_json())
    elif exported.met:
        emit(str(exported.path))
    if not exported.met:
        raise typer.Exit(EXIT_GATE)


def print_exported(console: Console, exported: "Exported") -> None:
    """How near the file came to PyTorch, and what there is to say of it."""
    from brainseg_cli.export import MAX_LOSS, SCORES

    for note in exported.notes:
        console.warn(note)
    for name, parity in exported.parity.items():
        console.say(
            f"{name}: within {parity.max_error:.1g} of PyTorch in a probability, "
            f"{parity.flipped:.2%} of pixels on the other side of 0.5, on made-up images"
        )
    if (val := exported.val) is not None:
        console.table(
            f"val, {val.runtime}: {val.slices} slices, {val.parity.flipped:.3%} of pixels decided otherwise",
            ["metric", "torch fp32", "exported", "loss"],
            [[name, val.torch[name], val.exported[name], f"{val.loss[name]:+.5f}"] for name in SCORES],
        )
    if exported.met:
        console.say(f"{exported.precision}, {exported.size_bytes / 1e6:.1f} MB: {exported.path}")
    elif val is not None:
        told = ", ".join(f"{val.loss[name]:.4f} of {name}" for name in SCORES)
        console.fail(f"int8 costs {told} on val; it must be less than {MAX_LOSS:g}: nothing was written")
