#!/usr/bin/env python3
"""Draw one saved run, or several in one picture: `python plot.py latest`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("plot", "evaluation.plot_command")
