#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24", "pyyaml>=6"]
# ///
"""What is wrong with a Python environment and what mends it: `python doctor.py`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("doctor", "doctor.command_line")
