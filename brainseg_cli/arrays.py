"""Arrays as named aliases, row first: (H, W) and (H, W, C). Other modules have them from `brainseg_cli.types`."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""(H, W, C) uint8, C in {1, 3}, channels in file order (RGB, never BGR)."""

Mask = npt.NDArray[np.uint8]
"""(H, W) uint8 in {0, 1}; 1 is tumour."""

Probs = npt.NDArray[np.float32]
"""(H, W) float32 in [0, 1]."""
