"""Settings that every trainer has: section `[BaseTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from constants import ARTIFACTS_DIR
from constants.metrics import Direction, direction_of, near_metric


@dataclass(kw_only=True)
class BaseTrainerConfig:
    """What the base class reads. Every trainer's config derives from it and may override a value in its own section."""

    # training: how long, of which data, and when it ends
    epochs: Annotated[int, Gt(0)] = 50
    """Passes over the training data."""
    batch_size: Annotated[int, Gt(0)] = 32
    """Samples a batch."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seed of python, numpy and torch: initial weights, data order, dropout."""
    validate_every_n_epochs: Annotated[int, Gt(0)] = 1
    """Epochs between validations; the last epoch is always validated."""
    monitor: str = "val_loss"
    """What a run is judged by, a number of its history such as `val_<metric>`: which epoch is the best, when early
    stopping ends the run, what ReduceLROnPlateau steps on, and what tables show."""
    monitor_mode: Literal["auto", "min", "max"] = "auto"
    """Whether `monitor` is better when it is low (`min`) or high (`max`); `auto` knows it of usual names: losses and
    errors fall, accuracies and correlations rise."""
    early_stopping_patience: Annotated[int, Ge(0)] = 10
    """Validations without improvement before the run stops; 0 turns early stopping off."""
    early_stopping_min_delta: Annotated[float, Ge(0)] = 0.0
    """How much better than the best, in the direction of `monitor`, a value must be to count as an improvement."""
    callbacks: str = ""
    """Callbacks, each as `package.module:Class` or `package.module:Class(name=value)`, with commas between
    (docs/callbacks.md); empty for none."""

    # optimizer: what makes a step
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Step size of the optimizer at the start."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Weight decay of the optimizer."""
    gradient_clip_value: Annotated[float, Ge(0)] = 1.0
    """Largest L2 norm of the whole gradient; 0 turns clipping off."""
    accumulation_steps: Annotated[int, Gt(0)] = 1
    """Batches whose gradients make one optimizer step."""
    lr_decay_factor: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Factor of ReduceLROnPlateau."""
    lr_patience: Annotated[int, Ge(0)] = 5
    """Validations without improvement before ReduceLROnPlateau lowers the learning rate."""
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of a moving average of the weights, with which is validated and which is saved as the best model; 0 has
    none, 0.999 averages about a thousand steps."""

    # checkpoints and files
    keep_last_checkpoints: Annotated[int, Gt(0)] = 2
    """Newest checkpoints that are kept, beside the best one."""
    checkpoint_every_n_steps: Annotated[int, Ge(0)] = 0
    """Optimizer steps between two checkpoints inside an epoch; 0 makes none there."""
    checkpoint_every_n_minutes: Annotated[float, Ge(0)] = 0.0
    """Minutes after which a checkpoint is made inside an epoch; 0 makes none there."""
    saving_share: Annotated[float, Interval(gt=0, le=1)] = 0.05
    """Largest share of the run's time for writing checkpoints and metrics.json; 1 writes them after each epoch."""
    save_in_background: bool = False
    """Write checkpoints in a thread while training goes on; takes memory for a second copy of weights and optimizer."""
    on_write_error: Literal["stop", "go_on"] = "stop"
    """What a checkpoint or metrics.json that can't be written does (a full disk): `stop` the run, or `go_on` without
    it and try again with the next; at the run's end it is an error in any case."""
    artifacts_dir: Path = ARTIFACTS_DIR
    """Folder that receives runs, checkpoints and published models."""

    # logging: what is seen of a run
    log_every_n_steps: Annotated[int, Gt(0)] = 50
    """Optimizer steps between two readings of the running loss (each is one host-device synchronisation)."""
    loss_spike_factor: Annotated[float, Ge(0)] = 0.0
    """Warn where the mean loss between two such readings is more than this times the usual; 0 doesn't look."""
    plot_at_end: bool = True
    """Draw the run's plots when it ends."""
    tensorboard: bool = False
    """Write the history to TensorBoard event files in the run folder (pip install tensorboard)."""
    mlflow: str = "off"
    """Send the history to MLflow: a tracking URI such as `http://localhost:5000`, or `off` (pip install mlflow)."""
    wandb: Literal["off", "offline", "on"] = "off"
    """Send the history to Weights & Biases; `offline` keeps it in the run folder (pip install wandb)."""

    # machine: where and in which form it computes
    device: str = "auto"
    """`auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads of torch; 0 takes one where operations are small (threads would wait for one another), else all."""
    num_workers: Annotated[int, Ge(0)] = 0
    """Processes of each DataLoader; 0 loads in the main process."""
    memory_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Largest share of the device's free memory for the data of a TensorLoader; else each batch is moved by itself."""
    step: Literal["auto", "eager", "compiled", "graph", "epoch"] = "auto"
    """Form of the optimizer step: `eager`, operation by operation; `compiled`, forward and backward compiled; `graph`,
    replayed on CUDA; `epoch`, many steps as one compiled program; `auto` chooses and says why."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Numbers of forward and backward; weights and optimizer stay as they are."""
    recompute_activations: bool = False
    """Compute activations of layers again in backward instead of keeping them, where the model names such layers."""
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    """Of several processes: `ddp`, each has the whole model; `fsdp2`, each has a slice of all weights and optimizer
    states; `auto` is ddp."""
    peer_timeout_minutes: Annotated[float, Gt(0)] = 10.0
    """Of several processes: how long one waits for another before it fails."""

    @property
    def monitor_direction(self) -> Direction:
        """Whether `monitor` is better when it is low or high: `mode` of a ReduceLROnPlateau.

        Raises:
            ValueError: neither its name nor `monitor_mode` says so.
        """
        direction = direction_of(self.monitor) if self.monitor_mode == "auto" else self.monitor_mode
        if direction is None:
            near = near_metric(self.monitor)
            meant = f"did you mean {near}? Else " if near else ""
            raise ValueError(
                f"monitor = {self.monitor}: its name does not say whether it is better low or high; {meant}write "
                "monitor_mode = min or monitor_mode = max"
            )
        return direction

    def __post_init__(self) -> None:
        """Refuse a monitor whose direction nobody knows.

        Raises:
            ValueError: neither its name nor `monitor_mode` says so.
        """
        _ = self.monitor_direction
