#!/usr/bin/env python3
"""Serve a model over the Tinker and OpenAI protocols: `python serve.py --model tiny`; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("serve", "service.command_line")
