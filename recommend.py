#!/usr/bin/env python3
"""Rank the zoo's models for a dataset never seen before: `python recommend.py DATASET`; `--help` tells the rest."""

import sys

from evaluation.recommend_command import main

if __name__ == "__main__":
    sys.exit(main())
