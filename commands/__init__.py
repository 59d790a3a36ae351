"""What `python train.py` does: `command_line.py` reads the arguments, and each module named in it is one mode.

A mode has a function `command(trainer_class, value) -> exit code`. What `--check`, `--find-lr` and `--find-batch-size`
share is in `probe_steps.py`.
"""
