"""`python train.py NAME --seeds 8`: one trainer with several seeds, for a mean and a spread instead of one number.

`command.py` is the mode, `group.py` the folder of a group and its seeds.json, `in_turn.py` trains the members one after
the other. What the numbers say is worked out, and drawn, in evaluation/ (`seed_groups.py`, `seed_plots.py`).
"""
