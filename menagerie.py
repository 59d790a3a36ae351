#!/usr/bin/env python3
"""The installed command: `menagerie train NAME` is `python train.py NAME` in a project of one's own."""

import sys

from commands.menagerie import main

if __name__ == "__main__":
    sys.exit(main())
