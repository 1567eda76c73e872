"""One pullback: a call of the network while its gates are soft, in parts, and what does not fit."""
