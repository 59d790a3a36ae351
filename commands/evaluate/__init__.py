"""`--test` and `--predict`: the best weights of a saved run, on data that had no part in choosing them.

`request.py` finds the run, before torch is imported; `trained.py` builds its trainer and loads the weights; `test.py`
measures them, `predict.py` writes what they make of each sample.
"""
