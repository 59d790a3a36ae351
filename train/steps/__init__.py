"""The optimizer step in its forms, behind one interface.

`eager.py` says what a step is; all others must equal it. `fast.py` holds what they share and the compiled step,
`epoch.py` many steps with the loop over them as one program, `graph.py` the replayed step; `choice.py` picks one.
`update.py` is how parameters change, and `rule.py` the same as a function; `guard.py` keeps bad steps from them.
`program.py` makes of a hook what can be compiled, and `purity.py` sees what a hook does besides; `evaluation.py` is
validation in the fast forms.
"""

from train.steps.choice import build_step, build_update
from train.steps.eager import EagerStep, Window, windows
from train.steps.guard import Guard
from train.steps.update import Update

__all__ = ["EagerStep", "Guard", "Update", "Window", "build_step", "build_update", "windows"]
