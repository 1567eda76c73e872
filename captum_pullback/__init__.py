"""Excitation pullbacks for PyTorch, as Captum attributions."""

from captum_pullback._version import __version__
from captum_pullback.ascent import PullbackAscent
from captum_pullback.attribution import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
)
from captum_pullback.effective import effective_weights
from captum_pullback.engine.softening import soften
from captum_pullback.fit import fit_temperature
from captum_pullback.lens.dynamics import TrainingLens

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
