"""Excitation pullbacks for PyTorch, as Captum attributions."""

from captum_pullback._version import __version__
from captum_pullback.ascent import PullbackAscent
from captum_pullback.attribution import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
)
from captum_pullback.effective import effective_weights
from captum_pullback.engine.backward import Held
from captum_pullback.engine.rules import EXCITATION, SEMANTIC, Rule
from captum_pullback.engine.softening import soften
from captum_pullback.engine.spread import Spread
from captum_pullback.fit import fit_temperature
from captum_pullback.lens.dynamics import TrainingLens

__all__ = [
    "EXCITATION",
    "SEMANTIC",
    "ExcitationPullback",
    "Held",
    "LayerExcitationPullback",
    "NeuronExcitationPullback",
    "PullbackAscent",
    "Rule",
    "Spread",
    "TrainingLens",
    "__version__",
    "effective_weights",
    "fit_temperature",
    "soften",
]
