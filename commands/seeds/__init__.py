"""`python train.py NAME --seeds 8`: one trainer with several seeds, for a mean and a spread instead of one number.

`command.py` is the mode and `group.py` the folder of a group with its seeds.json. `choice.py` says whether members are
trained one after the other (`in_turn.py`) or at once (`together.py`): each member's own loop in lockstep (`member.py`),
the steps of all as one (`shared_steps.py`), which are a stacked loss (`stacked_loss.py`, with `noise.py` and `tidy.py`)
and a stacked update (`stacked_update.py`). What the numbers say is worked out, and drawn, in evaluation/
(`seed_groups.py`, `seed_plots.py`). docs/seeds.md says what is promised and what it was measured to be worth.
"""
