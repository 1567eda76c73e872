"""What PyTorch calls its operations: the functions that a function mode is shown, by name.

One table for all that is not linear, `NONLINEAR`, whichever way it is spelled (``F.relu``,
``torch.relu_``, ``Tensor.relu``, ``aten.relu``); one for products, `PRODUCTS`; one for what is
linear unless it trains, `TRAINING`.
"""

from captum_pullback.engine.names.nonlinear import (
    KINDS,
    NONLINEAR,
    Operation,
    kind_of,
    nonlinear_of,
    read_call,
    split_call,
)
from captum_pullback.engine.names.products import PRODUCTS, Product, product_of
from captum_pullback.engine.names.spellings import spellings
from captum_pullback.engine.names.training import DROPOUTS, TRAINING, is_training, trains

__all__ = [
    "DROPOUTS", "KINDS", "NONLINEAR", "PRODUCTS", "TRAINING", "Operation", "Product", "is_training",
    "kind_of", "nonlinear_of", "product_of", "read_call", "spellings", "split_call", "trains",
]  # fmt: skip
