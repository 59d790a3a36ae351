#!/usr/bin/env python3
"""Draw one saved run, or several in one picture: `python plot.py latest`; `--help` tells the rest."""

import sys

from evaluation.plot_command import main

if __name__ == "__main__":
    sys.exit(main())
