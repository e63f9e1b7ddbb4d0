"""The version, which every saved file carries."""

__version__ = "0.1.0"
