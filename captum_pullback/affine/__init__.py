"""The affine map that a network with its gates held is: what `effective_weights` stands on."""
