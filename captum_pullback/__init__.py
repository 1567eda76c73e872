"""Excitation pullbacks for PyTorch, as Captum attributions.

Names are imported when they are first used, so that what needs no torch need not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_pullback._version import __version__

if TYPE_CHECKING:
    from captum_pullback.ascent import AscentStep, PullbackAscent
    from captum_pullback.attribution import (
        ExcitationPullback,
        LayerExcitationPullback,
        NeuronExcitationPullback,
    )
    from captum_pullback.effective import NotPiecewiseLinearError, effective_weights
    from captum_pullback.engine.calls.held import Held
    from captum_pullback.engine.errors import (
        CheckpointMismatchError,
        GateInputChangedError,
        SofteningError,
    )
    from captum_pullback.engine.record import SofteningRecord
    from captum_pullback.engine.rules import EXCITATION, SEMANTIC, Rule
    from captum_pullback.engine.softening import soften
    from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, PUBLISHED_TEMPERATURE
    from captum_pullback.engine.spread import Spread
    from captum_pullback.fit import NoTemperatureError, TemperatureFit, fit_temperature
    from captum_pullback.lens.dynamics import TrainingLens

__all__ = [
    "DEFAULT_TEMPERATURE",
    "EXCITATION",
    "PUBLISHED_TEMPERATURE",
    "SEMANTIC",
    "AscentStep",
    "CheckpointMismatchError",
    "ExcitationPullback",
    "GateInputChangedError",
    "Held",
    "LayerExcitationPullback",
    "NeuronExcitationPullback",
    "NoTemperatureError",
    "NotPiecewiseLinearError",
    "PullbackAscent",
    "Rule",
    "SofteningError",
    "SofteningRecord",
    "Spread",
    "TemperatureFit",
    "TrainingLens",
    "__version__",
    "effective_weights",
    "fit_temperature",
    "soften",
]

#: In which module each name above is.
_HOMES = {
    "DEFAULT_TEMPERATURE": "engine.softness",
    "EXCITATION": "engine.rules",
    "PUBLISHED_TEMPERATURE": "engine.softness",
    "SEMANTIC": "engine.rules",
    "AscentStep": "ascent",
    "NotPiecewiseLinearError": "effective",
    "CheckpointMismatchError": "engine.errors",
    "GateInputChangedError": "engine.errors",
    "NoTemperatureError": "fit",
    "SofteningError": "engine.errors",
    "SofteningRecord": "engine.record",
    "TemperatureFit": "fit",
    "ExcitationPullback": "attribution",
    "Held": "engine.calls.held",
    "LayerExcitationPullback": "attribution",
    "NeuronExcitationPullback": "attribution",
    "PullbackAscent": "ascent",
    "Rule": "engine.rules",
    "Spread": "engine.spread",
    "TrainingLens": "lens.dynamics",
    "effective_weights": "effective",
    "fit_temperature": "fit",
    "soften": "engine.softening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
