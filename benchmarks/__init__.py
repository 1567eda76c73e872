"""Measurements of excitation pullbacks against other attributions, and what they are made on."""
