"""Excitation pullbacks for PyTorch, as Captum attributions."""

from ._version import __version__
from .ascent import PullbackAscent
from .attribution import ExcitationPullback, LayerExcitationPullback, NeuronExcitationPullback
from .effective import effective_weights
from .fit import fit_temperature
from .lens.dynamics import TrainingLens
from .softening import soften

__all__ = [
    "ExcitationPullback",
    "LayerExcitationPullback",
    "NeuronExcitationPullback",
    "PullbackAscent",
    "TrainingLens",
    "__version__",
    "effective_weights",
    "fit_temperature",
    "soften",
]
