"""Excitation pullbacks for PyTorch, as Captum attributions."""

from ._version import __version__
from .attribution import ExcitationPullback, LayerExcitationPullback, NeuronExcitationPullback
from .fit import fit_temperature
from .softening import soften

__all__ = [
    "ExcitationPullback",
    "LayerExcitationPullback",
    "NeuronExcitationPullback",
    "__version__",
    "fit_temperature",
    "soften",
]
