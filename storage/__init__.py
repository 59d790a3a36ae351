"""What lies on disk, written and read in one place.

`files.py` writes so that a reader sees the old file or the new one, `file_lock.py` keeps two processes apart.
`run_folder.py` is one run's folder and `checkpoint_store.py` its checkpoints, with `plain_state.py` for states without
pickles. `saved_run.py` reads what a run has left; `run_table.py` and `run_comparison.py` put several side by side (by
`text_table.py`), `failed_runs.py` finds the runs whose numbers went wrong. `seed_groups.py` and `sweeps.py` read groups
of runs. `errors.py` is what can go wrong here.
"""
