#!/usr/bin/env python3
"""Rank the zoo's models for a dataset never seen before: `python recommend.py DATASET`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("recommend", "evaluation.recommend_command")
