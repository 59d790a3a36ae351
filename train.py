#!/usr/bin/env python3
"""Run a trainer: `python train.py ModelAutoEncoderTrainer`; `--help` tells the rest."""

import sys

from commands.command_line import main

if __name__ == "__main__":
    sys.exit(main())
