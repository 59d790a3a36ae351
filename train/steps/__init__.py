"""One optimizer step.

`eager.py` says what a step is: forward, backward, clip, update; all other forms (train/compiled, train/distributed)
must equal it. `update.py` is how parameters change, and `guard.py` keeps bad steps from them. `precision.py` says what
numbers are computed with, `weight_average.py` follows the weights. train/step_choice.py picks the form.
"""

from train.steps.eager import EagerStep, StepInput, group_microbatches
from train.steps.guard import Guard
from train.steps.update import Update

__all__ = ["EagerStep", "Guard", "StepInput", "Update", "group_microbatches"]
