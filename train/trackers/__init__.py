"""Sends a run's numbers to TensorBoard, MLflow, Weights & Biases or a tracker of one's own. See docs/trackers.md.

metrics.json stays what is true of a run; trackers are told the same and may fail without harm to it.
"""

from train.trackers.tracker import RunFacts, Tracker
from train.trackers.trackers import TRACKERS, Trackers

__all__ = ["TRACKERS", "RunFacts", "Tracker", "Trackers"]
