"""The optimizer step in its forms, behind one interface. `EagerStep` says what a step is."""

from train.steps.eager import EagerStep, Window, windows
from train.steps.update import Update

__all__ = ["EagerStep", "Update", "Window", "windows"]
