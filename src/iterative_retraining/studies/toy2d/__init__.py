"""Distributions in the plane: many small models retrained at once, measured against a known density."""
