"""Networks by name, the embedded reference network, and photographs."""

from captum_pullback.zoo.networks import (
    Network,
    ReferenceNet,
    ZooError,
    class_index,
    load,
    reference_network,
)

__all__ = ["Network", "ReferenceNet", "ZooError", "class_index", "load", "reference_network"]
