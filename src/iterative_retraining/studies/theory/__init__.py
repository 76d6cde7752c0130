"""Theorems 1 and 2, measured, and retraining simulated from its exact distribution instead of by `retrain`."""
