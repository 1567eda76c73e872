"""Steps in pixel space along pullbacks, and the region that they stay in."""

from captum_pullback.ascent.steps import AscentStep, PullbackAscent

__all__ = ["AscentStep", "PullbackAscent"]
