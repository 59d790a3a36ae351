"""What bench/agent_loops.py hears of train.py: `callbacks=bench.epoch_marks:EpochMarks`."""

from train.callbacks import Callback
from train.trainer_protocol import Trainer


class EpochMarks(Callback):
    """Says of each epoch that it is over, in the words of the examples' loops; the log shows one a second at most."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Say it.

        Args:
            trainer: the trainer that runs.
            epoch: epochs finished.
            numbers: the epoch's entries of the history.
        """
        print(f"epoch {epoch}: reward {numbers['train_reward']:.3f}", flush=True)
