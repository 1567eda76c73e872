"""The Captum attributions: Captum's own gradient methods, run while the gates are soft.

What an input, a target or a layer may be, and how a model is called, is Captum's. What a gate
passes on is ours.
"""

from captum_pullback.attribution.hidden import LayerExcitationPullback, NeuronExcitationPullback
from captum_pullback.attribution.output import ExcitationPullback

__all__ = ["ExcitationPullback", "LayerExcitationPullback", "NeuronExcitationPullback"]
