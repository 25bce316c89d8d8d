"""A grid of runs: stated in one file, expanded to `fit` command lines, run on Ray."""
