"""brainseg info."""

from typing import Annotated, Any

import typer

from brainseg_cli import __version__
from brainseg_cli.cli.console import emit, emit_json
from brainseg_cli.cli.options import AsJson

LIBRARIES = (
    "torch", "segmentation-models-pytorch", "albumentations", "opencv-python-headless", "numpy", "pandas",
)  # fmt: skip


def info_command(
    devices: Annotated[bool, typer.Option("--devices", help="Ask PyTorch what can compute here.")] = False,
    encoders: Annotated[bool, typer.Option("--encoders", help="List the encoders that train takes.")] = False,
    models: Annotated[bool, typer.Option("--models", help="Show the model cards of the built-in models.")] = False,
    as_json: AsJson = False,
) -> None:
    """Versions, presets and built-in models; with options, devices and encoders (these load PyTorch) or model cards."""
    import platform
    from importlib import metadata

    from brainseg_cli.config import DEFAULT_PRESET, list_presets
    from brainseg_cli.models.built_in import list_built_in, read_card

    info: dict[str, Any] = {
        "brainseg": __version__,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "presets": list_presets(),
        "default_preset": DEFAULT_PRESET,
        "models": list_built_in(),
    }
    if models:
        info["model_cards"] = {name: read_card(name) for name in list_built_in()}
    if devices:
        from brainseg_cli.models.devices import list_devices

        info["devices"] = list_devices()
    if encoders:
        from brainseg_cli.models.build import list_encoders

        info["encoders"] = list_encoders()
    if as_json:
        emit_json(info, indent=2)
        return
    cards = info.pop("model_cards", {})
    for name, value in info.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {version}" for key, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        emit(f"{name}: {value}")
    for card in cards.values():
        emit(f"\n{card}")
