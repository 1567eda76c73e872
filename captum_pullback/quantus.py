"""Excitation pullbacks for Quantus: an explain function with its signature.

Quantus (https://github.com/understandable-machine-intelligence-lab/Quantus) evaluates whatever
function from a model, inputs and targets to attributions it is given::

    import quantus
    from captum_pullback.quantus import explain

    scores = quantus.MaxSensitivity()(
        model=model, x_batch=x, y_batch=y, explain_func=explain,
    )

Nothing of it is imported here, and this package does not install it: ``pip install
captum-pullback[quantus]`` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE
from captum_pullback.engine.temperature import TemperatureLike

__all__ = ["explain"]

Array = npt.NDArray[Any]


def explain(
    model: nn.Module,
    inputs: Array,
    targets: Array | None,
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
        model: The network; its mode and its device do not change.
        inputs: Shape (N, ...), as the network takes them.
        targets: The class of each, shape (N,), whole numbers of any type; None for the predicted
            ones. If a network has one output per example, (N,), there are no classes, and targets
            (such as the labels of a regression) are ignored.
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

    Raises:
        ValueError: Targets are not one whole number for each input.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    batch = torch.as_tensor(np.asarray(inputs), dtype=parameter.dtype)
    where = parameter.device if device is None else device
    batch = batch.to(where)
    classes = _classes(model, batch, targets)
    pullback = ExcitationPullback(
        model,
        temperature,
        pool_temperature=pool_temperature,
        rules=rules,
        multiply_by_inputs=multiply_by_inputs,
    )
    attributions = pullback.attribute(batch, classes)
    if reduce_axes:
        attributions = attributions.sum(reduce_axes, keepdim=True)
    result: Array = attributions.cpu().numpy()
    return result


def _classes(model: nn.Module, inputs: Tensor, targets: Array | None) -> Tensor | None:
    """The classes to attribute, (N,); None for a network that has none."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            output = on_copies(model.eval(), inputs if targets is None else inputs[:1])
    finally:
        for module, training in modes:
            module.training = training
    if output.dim() == 1:
        return None
    if targets is None:
        if output.dim() != 2:
            raise ValueError(
                f"targets is None, and outputs have the shape {tuple(output.shape)}: pass "
                "targets, which say which output to explain for each input"
            )
        predicted: Tensor = output.argmax(dim=1)
        return predicted
    values = np.asarray(targets)
    if values.size != len(inputs) or values.dtype.kind not in "iufb" or (values % 1 != 0).any():
        raise ValueError(
            f"targets are {values.dtype} of shape {values.shape}; expected one whole "
            f"number, the class, for each of {len(inputs)} inputs"
        )
    return torch.as_tensor(values.reshape(-1).astype(np.int64), device=inputs.device)
