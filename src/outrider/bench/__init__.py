"""Measurements: `outrider bench`."""
