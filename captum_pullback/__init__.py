"""Excitation pullbacks for PyTorch, as Captum attributions."""
