"""Measurements, side by side in one run; see README.md's table for what they gave and where."""
