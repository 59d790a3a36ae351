#!/usr/bin/env python3
"""Fine-tune a model with agents and a person who decides: `python tune.py new TASK.yaml`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("tune", "agents.command_line")
