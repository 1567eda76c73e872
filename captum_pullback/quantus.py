"""Excitation pullbacks for Quantus: an explain function with its signature.

Quantus (https://github.com/understandable-machine-intelligence-lab/Quantus) evaluates whatever
function from a model, inputs and targets to attributions it is given::

    import quantus
    from captum_pullback.quantus import explain

    scores = quantus.MaxSensitivity()(
        model=model, x_batch=x, y_batch=y, explain_func=explain,
        explain_func_kwargs={"temperature": 0.3},
    )

Nothing of it is imported here, and this package does not install it: ``pip install
captum-pullback[quantus]`` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE
from captum_pullback.engine.temperature import TemperatureLike

__all__ = ["explain"]

Array = npt.NDArray[Any]


def explain(
    model: nn.Module,
    inputs: Array,
    targets: Array,
    *,
    temperature: TemperatureLike = DEFAULT_TEMPERATURE,
    pool_temperature: TemperatureLike | None = None,
    rules: RulesLike | None = None,
    multiply_by_inputs: bool = False,
    reduce_axes: tuple[int, ...] = (),
    device: str | torch.device | None = None,
    **_: Any,
) -> Array:
    """The excitation pullback as an ``explain_func`` of Quantus.

    Args:
        model: The network; it stays in the mode and on the device that it is in.
        inputs: Shape (N, ...), as the network takes them.
        targets: The class of each, shape (N,).
        temperature: As for `ExcitationPullback`.
        pool_temperature: As for `ExcitationPullback`.
        rules: As for `ExcitationPullback`.
        multiply_by_inputs: As for `ExcitationPullback`.
        reduce_axes: Axes to sum over, kept with length 1; (1,) gives (N, 1, H, W) from images.
        device: Of the inputs; None is that of the model's first parameter.
        **_: What else Quantus's metrics pass on to every explain function.

    Returns:
        The attributions, of the inputs' shape but for ``reduce_axes``, and of the model's type.

    Errors are those of `ExcitationPullback` and its ``attribute``.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    batch = torch.as_tensor(np.asarray(inputs), dtype=parameter.dtype)
    classes = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
    where = parameter.device if device is None else device
    pullback = ExcitationPullback(
        model,
        temperature,
        pool_temperature=pool_temperature,
        rules=rules,
        multiply_by_inputs=multiply_by_inputs,
    )
    attributions = pullback.attribute(batch.to(where), classes.to(where))
    if reduce_axes:
        attributions = attributions.sum(reduce_axes, keepdim=True)
    result: Array = attributions.cpu().numpy()
    return result
