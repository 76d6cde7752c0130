"""Tables and comparisons of runs, what flags imply, what a retraining costs."""
