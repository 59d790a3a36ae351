"""What is called at certain moments of a run: see docs/callbacks.md.

`callback.py` is the interface, `callbacks.py` calls those of a run, `named.py` makes those that config.ini names. The
others come along, each in its file. Trackers (train/trackers) are callbacks too.
"""

from constants import add_own_modules
from train.callbacks.callback import Callback
from train.callbacks.callbacks import CallbackError, Callbacks, require_list
from train.callbacks.freeze_layers import FreezeLayers
from train.callbacks.gradient_norm import GradientNorm
from train.callbacks.learning_rate_monitor import LearningRateMonitor
from train.callbacks.named import callbacks_named
from train.callbacks.prediction_pictures import PredictionPictures
from train.callbacks.stop_after_epoch import StopAfterEpoch
from train.callbacks.stop_at_time import StopAtTime
from train.callbacks.throughput import Throughput

add_own_modules(__path__, __name__)

__all__ = [
    "Callback",
    "CallbackError",
    "Callbacks",
    "FreezeLayers",
    "GradientNorm",
    "LearningRateMonitor",
    "PredictionPictures",
    "StopAfterEpoch",
    "StopAtTime",
    "Throughput",
    "callbacks_named",
    "require_list",
]
