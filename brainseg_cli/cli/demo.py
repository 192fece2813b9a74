"""The phantom data set that --demo works on."""

from pathlib import Path

from brainseg_cli.types import Progress

DEMO_FOLDER = Path("data") / "demo"


def write_demo(folder: Path, *, progress: Progress) -> Path:
    """Make the phantom below `folder` and give its path. The same bytes each time, so it is simply made anew."""
    from brainseg_cli.data.phantom import write_phantom
    from brainseg_cli.io.folders import atomic_folder

    source = folder / "phantom"
    with atomic_folder(source, "--demo", overwrite=True) as aside:
        write_phantom(aside, progress=progress)
    return source
