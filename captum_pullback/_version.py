"""The version, alone in a file that setup can read without importing torch."""

__version__ = "0.1.0"
