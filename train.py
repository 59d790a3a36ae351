#!/usr/bin/env python3
"""Run a trainer: `python train.py ModelAutoEncoderTrainer`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("train", "commands.command_line")
