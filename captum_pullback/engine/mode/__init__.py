"""The function mode that meets every operation of a thread, and how each kind of them then runs."""

from captum_pullback.engine.mode.differentiating import LeaveLeanError
from captum_pullback.engine.mode.dispatch import SofteningMode
from captum_pullback.engine.mode.running import NAMES_ARE_LOST
from captum_pullback.engine.mode.state import State, innermost

__all__ = ["NAMES_ARE_LOST", "LeaveLeanError", "SofteningMode", "State", "innermost"]
