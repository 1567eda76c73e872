"""The errors: what is not possible, and what to do instead."""

from __future__ import annotations

__all__ = [
    "CheckpointMismatchError",
    "ForwardModeError",
    "GateInputChangedError",
    "SofteningError",
]


class SofteningError(RuntimeError):
    """The requested pullback cannot be computed."""


class ForwardModeError(SofteningError):
    """A forward-mode derivative is taken."""

    def __init__(self) -> None:
        super().__init__(
            "forward-mode derivatives (torch.autograd.forward_ad, torch.func.jvp) would not be "
            "softened, since gates are soft in the backward pass only: take a gradient instead"
        )


class CheckpointMismatchError(RuntimeError):
    """Activation checkpointing recomputed, or would recompute, a forward pass outside `soften`."""

    def __init__(self) -> None:
        super().__init__(
            "activation checkpointing runs the forward pass again when the gradient is taken, "
            "which must happen inside soften(): take the gradient "
            "inside the `with soften(...)` block"
        )


class GateInputChangedError(RuntimeError):
    """A network changed the input of a gate in place, after the gate had run."""

    def __init__(self) -> None:
        super().__init__(
            "the network changed the input of a gate in place after the gate had run, and soft "
            "gates need that input: use an operation that is not in place there"
        )
