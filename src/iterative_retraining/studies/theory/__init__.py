"""Theorems 1 and 2, measured, and exact simulations."""
