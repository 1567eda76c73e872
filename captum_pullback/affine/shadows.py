"""A second value for each tensor of a computation, in memory that is shared just as its own is.

Networks write into tensors, and into views of them. So what has a second value, a shadow, is the
storage: all tensors that lie in it have theirs at the same places in its shadow, whichever was
taken first, and what is written into one of them is seen in the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["Shadows", "shares_memory"]

_SWEEP_EVERY = 16


class Shadows:
    """The shadows of the tensors of one computation; they go with the tensors' memory."""

    def __init__(self) -> None:
        # A weak reference is equal to all others of the same storage, and outlives it as a key:
        # no other storage gets its address meanwhile.
        self._of: dict[StorageWeakRef, torch.UntypedStorage] = {}
        self._puts = 0

    def __contains__(self, tensor: Tensor) -> bool:
        return _key(tensor) in self._of

    def of(self, tensor: Tensor) -> Tensor:
        """A tensor's shadow, of its shape and strides: a view of the memory of the shadow."""
        shadow = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        shadow.set_(self._of[_key(tensor)], tensor.storage_offset(), tensor.size(), tensor.stride())
        return shadow.conj() if tensor.is_conj() else shadow

    def begin(self, tensor: Tensor) -> None:
        """Let what lies in the tensor's memory be its own shadow, unless it has one."""
        if tensor not in self:
            self._enter(tensor, tensor.untyped_storage().clone())  # type: ignore[no-untyped-call]

    def put(self, tensor: Tensor, value: Tensor, *, fresh: bool = False) -> None:
        """Let a tensor have this shadow.

        Args:
            tensor: A tensor that was just computed; it may lie in the memory of another one.
            value: Its shadow, of the same shape.
            fresh: Whether nothing else lies in the memory of ``value``.
        """
        if tensor in self:
            shadow = self.of(tensor)
            if not _same(shadow, value):
                shadow.copy_(value)
        elif fresh and _alike(tensor, value):
            self._enter(tensor, value.untyped_storage())
        else:
            size = tensor.untyped_storage().nbytes()
            memory = torch.empty(size, dtype=torch.uint8, device=tensor.device)
            self._enter(tensor, memory.untyped_storage())
            self.of(tensor).copy_(value)

    def _enter(self, tensor: Tensor, storage: torch.UntypedStorage) -> None:
        self._puts += 1
        if self._puts % _SWEEP_EVERY == 0:
            self._of = {key: kept for key, kept in self._of.items() if not _is_gone(key)}
        self._of[_key(tensor)] = storage


def _key(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def shares_memory(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in one memory, as views of each other do."""
    if tensor is other:
        return True
    try:
        return bool(_key(tensor) == _key(other))
    except (NotImplementedError, RuntimeError):  # sparse ones have no memory of their own
        return False


def _is_gone(key: StorageWeakRef) -> bool:
    return bool(key.expired())  # type: ignore[no-untyped-call]


def _alike(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in their memory in the same way."""
    return bool(
        tensor.dtype == other.dtype
        and tensor.device == other.device
        and tensor.size() == other.size()
        and tensor.stride() == other.stride()
        and tensor.storage_offset() == other.storage_offset()
        and tensor.untyped_storage().nbytes() == other.untyped_storage().nbytes()
        and tensor.is_conj() == other.is_conj()
    )


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one and the same memory."""
    return _alike(tensor, other) and _key(tensor) == _key(other)
