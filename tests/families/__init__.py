"""The networks that every promise of the package is tested on, as small as their families allow.

Each is made by a function without arguments, which gives a network in eval mode, with random
parameters in float64, and a batch of two inputs.
"""

from __future__ import annotations

from collections.abc import Callable

from families import image_models, language, torchvision_models
from families.family import Family

FAMILIES: dict[str, Callable[[], Family]] = {
    **torchvision_models.FAMILIES,
    **image_models.FAMILIES,
    **language.FAMILIES,
}
