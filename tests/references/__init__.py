"""Networks written a second time, with every gate held by hand and nothing of the package.

Each is a function of a state dict and an input. A gate's value goes through `Gates.hold`, which
detaches it: plain autograd of such a network is its pullback at temperature 0.
"""
