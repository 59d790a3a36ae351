"""What the training loop in train/base_trainer.py is made of.

`meters.py` averages over an epoch, `record.py` is the run's numbers with `step_losses.py`, `epoch_position.py` says how
far an epoch is. `early_stopping.py` and `stop_signals.py` may end it, `progress.py` shows it. `own_loop.py`
hears what a `train()` of an author's own does.
"""
