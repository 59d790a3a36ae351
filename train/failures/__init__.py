"""When numbers go wrong: what was the step, which layer was the first, and the same again by `train.py --replay`.

`report.py` is called by the loop; it reads the batches again and writes `failure/` of the run (`files.py`). `probe.py`
repeats the step while `watch.py` looks at every layer and operation, `measure.py` and `batch_check.py` measure, and
`finding.py` names the cause. `runs.py` finds a run that has failed, and `replay.py` repeats its step.
"""
