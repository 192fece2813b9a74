"""The models in the package, by name: weights/NAME is a model/ folder, with a model card as its README.md."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT_MODEL = "lgg-small"
"""What predict runs where no model is named."""


def list_built_in() -> list[str]:
    """Their names, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob("*/brainseg.json"))


def find_built_in(path: Path) -> Path | None:
    """The model/ folder of the model that `path` names, where it is the name of one and nothing that is there."""
    return FOLDER / path.name if str(path) in list_built_in() and not path.exists() else None


def is_built_in(folder: Path) -> bool:
    """Whether a model/ folder is the package's own, which is not ours to write in."""
    return folder.resolve().parent == FOLDER.resolve()


def read_card(name: str) -> str:
    """The model card of a built-in model, in Markdown."""
    return (FOLDER / name / "README.md").read_text(encoding="utf-8")
