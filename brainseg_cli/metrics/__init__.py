"""Masks and probabilities to numbers; no torch, no files."""
