"""Draws saved runs: losses and metrics of runs, groups of seeds and sweeps, learning rate tests, trainers' pictures."""
