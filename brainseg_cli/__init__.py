"""Brain MRI slices to a trained U-Net, and a trained U-Net to masks, measured and drawn."""

__version__ = "0.1.0"
