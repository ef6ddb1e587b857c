"""Outrider moves a running communication service of a 5G core into another operator's network and back."""

__version__ = "0.1.0"
