"""Put a run's weights into the package, in half precision: python docs/make_weights.py RUN NAME."""

import sys
from pathlib import Path

from brainseg_cli.models.built_in import FOLDER
from brainseg_cli.models.bundle import load_bundle, save_bundle


def make_weights(run: Path, name: str) -> Path:
    """The folder it was written to. Half a network is loaded into a whole one, and computes as any other."""
    model, info = load_bundle(run)
    folder = FOLDER / name
    save_bundle(folder, model.half(), info)
    return folder


if __name__ == "__main__":
    print(make_weights(Path(sys.argv[1]), sys.argv[2]))  # noqa: T201
