"""The search for a temperature, and how its candidates are judged."""

from captum_pullback.fit.candidates import Candidate
from captum_pullback.fit.search import NoTemperatureError, TemperatureFit, fit_temperature

__all__ = ["Candidate", "NoTemperatureError", "TemperatureFit", "fit_temperature"]
