"""What cannot be given, and what to do instead."""

from __future__ import annotations

__all__ = [
    "CheckpointMismatchError",
    "ForwardModeError",
    "GateInputChangedError",
    "SofteningError",
]


class SofteningError(RuntimeError):
    """A pullback was asked for that cannot be given."""


class ForwardModeError(SofteningError):
    """A derivative is taken forward, with the forward pass itself."""

    def __init__(self) -> None:
        super().__init__(
            "forward-mode derivatives (torch.autograd.forward_ad, torch.func.jvp) would be plain "
            "ones, since soft gates are soft in the backward pass: take a gradient"
        )


class CheckpointMismatchError(RuntimeError):
    """Activation checkpointing recomputed, or would recompute, a forward pass outside `soften`."""

    def __init__(self) -> None:
        super().__init__(
            "activation checkpointing runs the forward pass again when the gradient is taken, and "
            "that must be inside of soften(): take it inside the `with soften(...)` block"
        )


class GateInputChangedError(RuntimeError):
    """A network changed the input of a gate in place, after the gate had run."""

    def __init__(self) -> None:
        super().__init__(
            "the network changed the input of a gate in place after the gate had run, and soft "
            "gates need that input: let it use an operation that is not in place there"
        )
