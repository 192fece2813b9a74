"""Brain MRI slices to a trained U-Net, and a trained U-Net to masks, measured and drawn.

From Python: `load_model("runs/demo").predict(image)`; see `brainseg_cli.api`.
"""

__version__ = "0.1.0"
__all__ = ["Model", "Segmentation", "__version__", "load_model"]

TYPE_CHECKING = False  # what type checkers take for true, without loading `typing`
if TYPE_CHECKING:
    from brainseg_cli.api import Model, Segmentation, load_model


def __getattr__(name: str) -> object:
    """The names of `brainseg_cli.api`, loaded when one is asked for: the import itself loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("brainseg_cli.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
