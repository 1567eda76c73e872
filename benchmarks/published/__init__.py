"""The published measurement, as a command: ``python -m benchmarks.published``."""
