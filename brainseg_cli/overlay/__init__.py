"""overlay: images and the masks predicted for them to figures, one a slice, or a contact sheet or animation a patient.

`overlay` finds out what is to be drawn and where it goes; what it returns draws it, in order, while the list of images
may still be growing.
"""

from brainseg_cli.overlay.run import Drawing, Outcome, overlay
from brainseg_cli.overlay.settings import Look, Places, Sources

__all__ = ["Drawing", "Look", "Outcome", "Places", "Sources", "overlay"]
