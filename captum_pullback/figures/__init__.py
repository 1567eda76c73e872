"""Figures: attributions side by side, and ascents."""
