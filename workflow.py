#!/usr/bin/env python3
"""Look after long fine-tuning work on the Tinker API: `python workflow.py lint SCRIPT.py`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("workflow", "workflow.command_line")
