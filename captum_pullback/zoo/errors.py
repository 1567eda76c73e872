"""The error of networks that cannot be loaded."""


class ZooError(RuntimeError):
    """A network, its weights or one of its classes cannot be loaded; the message says why."""
