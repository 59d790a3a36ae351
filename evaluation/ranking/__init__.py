"""Ranks the models of a zoo for a dataset, and says how well that goes.

`recommender.py` ranks for a dataset that nobody has measured. `transferability.py` holds the scores of the literature,
`ranking_metrics.py` what a ranking is judged by, `protocol.py` and `table_protocol.py` the benchmarks with their
`baselines.py`.
"""
