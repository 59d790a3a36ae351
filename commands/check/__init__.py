"""`--check`: what should be known before a long run, each line a verdict with figures.

`checklist.py` is the list; it reads like the checklist. `data.py`, `learning.py`, `files.py`, `control.py` and
`machine.py` hold the checks, each a function of a `Subject` (`subject.py`) that returns a `Verdict` (`report.py`);
`run.py` runs them. In the spirit of A. Karpathy, "A recipe for training neural networks" (2019).
"""
