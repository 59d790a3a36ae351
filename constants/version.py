"""The program's version. Here alone: pyproject.toml reads it, `--version` prints it, runs record it."""

VERSION = "0.2.0.dev0"
