"""What multiplies or divides, however it is spelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from captum_pullback.engine.names.spellings import spellings

__all__ = ["PRODUCTS", "Product", "product_of"]


@dataclass(frozen=True)
class Product:
    """A function that multiplies or divides tensors.

    Attributes:
        name: What records call it.
        factors: Where among its arguments the factors are.
        divides: Whether the second is a denominator.
        inplace: Whether it writes into its first argument.
        operands: Whether all tensors among its arguments are factors, as einsum's are.
    """

    name: str
    factors: tuple[int, ...] = (0, 1)
    divides: bool = False
    inplace: bool = False
    operands: bool = False


def _products() -> dict[Any, Product]:
    table: dict[Any, Product] = {}

    def enter(names: str, factors: tuple[int, ...] = (0, 1), *, divides: bool = False) -> None:
        for name in names.split():
            title = name.strip("_").removeprefix("r")
            for function in spellings(name):
                table.setdefault(function, Product(title, factors, divides))
            inplace = f"__i{name[2:]}" if name.startswith("__") else f"{name}_"
            for function in spellings(inplace):
                table.setdefault(function, Product(title, factors, divides, inplace=True))

    enter("mul multiply matmul bmm mm mv dot vdot inner outer ger tensordot kron cross")
    enter("__mul__ __matmul__ __rmul__ __rmatmul__")
    enter("baddbmm addmm addbmm addmv addr addcmul", (1, 2))
    enter("div divide true_divide __truediv__ __div__", divides=True)
    enter("addcdiv", (1, 2), divides=True)
    enter("bilinear linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d")
    enter("conv_transpose3d convolution")
    for function in spellings("einsum"):
        table[function] = Product("einsum", (), operands=True)
    return table


PRODUCTS: dict[Any, Product] = _products()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def product_of(func: Any) -> Product | None:
    """What a function is, if it multiplies or divides."""
    return PRODUCTS.get(func)
