"""The optimizer step in its forms, behind one interface.

`eager.py` says what a step is; all others must equal it. `compiled` compiles forward and backward, `epoch` many whole
steps with the loop over them; `choice.py` picks one. `update.py` is how parameters change, `program.py` how a trainer's
hook becomes something that can be compiled.
"""

from train.steps.choice import build_step
from train.steps.eager import EagerStep, Window, windows
from train.steps.update import Update

__all__ = ["EagerStep", "Update", "Window", "build_step", "windows"]
