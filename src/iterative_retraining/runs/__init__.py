"""The run directory and all that keeps, tells and reads runs."""
