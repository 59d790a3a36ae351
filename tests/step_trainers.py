"""Small trainers for the tests of the step's forms, and a way to run them in this process."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops.while_loop import while_loop
from torch.optim.lr_scheduler import ReduceLROnPlateau

from commands.probe_steps import build_for_probing, quiet_log
from config import BaseTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer, RunOptions
from train.compiled import epoch as epoch_form
from train.compiled import fast
from train.schedulers import warmup_cosine


def settings(folder: Path, **changes: Any) -> BaseTrainerConfig:
    """A config whose run leaves its files in a folder."""
    usual = dict(step="eager", plot_at_end=False, early_stopping_patience=0, device="cpu", saving_share=0.05, threads=1)
    return BaseTrainerConfig(artifacts_dir=folder, **{**usual, **changes})


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal random numbers of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Kit:
    """What the trainers share: their parts are set in one call, and what an epoch leaves behind is kept.

    Attributes:
        last: every tensor that steps change, by name, as it was after the last epoch (`train` ends with the best).
        random: the state of torch's random numbers then.
        rates: the learning rates after each epoch.
        interrupt_after: epochs after which somebody presses Ctrl-C.
        copied_after: epochs after which the run's folder is copied, as one whose process is gone then would be.
    """

    interrupt_after: int | None = None
    copied_after: int | None = None

    def furnish(self, config: BaseTrainerConfig, loaders: Any, optimizer: Any, scheduler: Any = None) -> None:
        """Give it its parts, then call the base class's `__init__`."""
        self.config, self.optimizer = config, optimizer
        self.train_loader, self.val_loader = loaders
        self.scheduler = scheduler or ReduceLROnPlateau(optimizer, factor=0.5, patience=10**6)
        self.init_progress_bar(total=len(self.train_loader) * config.epochs)
        self.rates: list[list[float]] = []
        super().__init__()

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save, and keep everything."""
        super().save_checkpoint(epoch, is_best)
        self.last, self.random = snapshot(self), torch.get_rng_state()
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        if epoch == self.copied_after:
            shutil.copytree(self.config.artifacts_dir, copy_of(self), symlinks=True)
        if epoch == self.interrupt_after:
            raise KeyboardInterrupt


def copy_of(trainer: Any) -> Path:
    """Return where a trainer copies its run's folder."""
    return trainer.config.artifacts_dir.with_name(f"{trainer.config.artifacts_dir.name}_copied")


def snapshot(trainer: Any) -> dict[str, torch.Tensor]:
    """Copy all parameters, buffers and optimizer states of a trainer."""
    modules = {name: value for name, value in vars(trainer).items() if isinstance(value, nn.Module)}
    found = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()}
    found |= {f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_buffers()}
    for number, state in enumerate(trainer.optimizer.state.values()):
        found |= {f"state.{number}.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: value.detach().clone() for name, value in found.items()}


def run(make: Callable[..., Any], folder: Path, resume: str | None = None, **changes: Any) -> Any:
    """Build a trainer, train it, return it.

    What torch.compile remembers of earlier runs is dropped first: each run finds it as a process of its own would.
    """
    torch._dynamo.reset()
    before, BaseTrainer.options = BaseTrainer.options, RunOptions(resume=resume)
    try:
        trainer = make(folder, **changes)
    finally:
        BaseTrainer.options = before
    trainer.train()
    return trainer


def run_epoch(trainer: Any) -> None:
    """Do an epoch's steps, without what `train` has around them."""
    run = trainer.run_context
    trainer._begin_epoch()
    for step_input in run.position.remaining(run.step, trainer.train_loader):
        run.step(step_input)
        trainer._after_step(step_input)
    trainer._end_epoch()


@contextmanager
def recorded_only(monkeypatch: pytest.MonkeyPatch, traced: bool = False) -> Iterator[None]:
    """Let the fast forms run what they record as it is: their own logic without the seconds of the compiler.

    Args:
        monkeypatch: puts the compiler back.
        traced: whether it goes through the compiler's front end all the same, which takes two seconds a run: for tests
            of what is compiled beside what is recorded, such as an optimizer's rule, which must be traced whole.
    """

    def as_is(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, backend="eager", fullgraph=True, dynamic=False) if traced else function

    with monkeypatch.context() as patch:
        patch.setattr(fast.FastStep, "compile", staticmethod(as_is))
        patch.setattr(epoch_form, "compile_loop", as_is)
        if not traced:  # the loop would compile itself
            patch.setattr(sys.modules[while_loop.__module__], "while_loop", plain_loop)
        yield


def plain_loop(more: Callable[..., Any], body: Callable[..., Any], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    """Do what `while_loop` does, in Python."""
    while more(*carry):
        carry = body(*carry)
    return carry


# ------------------------------------------------------------------------------- trainers of many features at once


class NormTrainer(Kit, BaseTrainer):
    """BatchNorm, dropout, a frozen layer, class weights that the trainer holds, dict batches, metrics; SGD, Nesterov.

    421 samples in batches of 8: the last one has 5. The plateau scheduler has no patience at all.
    """

    def __init__(self, folder: Path, **changes: Any) -> None:
        config = settings(folder, **{"epochs": 4, "batch_size": 8, "learning_rate": 0.02, **changes})
        self.model = nn.Sequential()
        self.model.add_module("frozen", nn.Linear(6, 12))
        self.model.add_module("norm", nn.BatchNorm1d(12))
        self.model.add_module("relu", nn.ReLU())
        self.model.add_module("dropout", nn.Dropout(0.3))
        self.model.add_module("head", nn.Linear(12, 3))
        for parameter in self.model.frozen.parameters():
            parameter.requires_grad_(False)
        self.class_weights = torch.tensor([0.5, 1.0, 2.0])
        wanted = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(wanted, lr=config.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-2)
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.05)
        self.furnish(
            config, (_labelled(421, 1, config.batch_size), _labelled(77, 2, config.batch_size)), optimizer, plateau
        )

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores = self.model(batch["x"])  # (B, 3)
        hits = (scores.argmax(dim=1) == batch["y"]).float()
        self._collect_batch_metrics({"top1": hits.mean(), "size": scores.detach().norm(dim=1)})
        return F.cross_entropy(scores, batch["y"], self.class_weights)


def _labelled(count: int, seed: int, batch_size: int) -> TensorLoader:
    x = numbers(count, 6, seed=seed)
    y = (x @ numbers(6, 3, seed=9)).argmax(dim=1)
    return TensorLoader({"x": 3 * x + 1, "y": y}, batch_size, shuffle=seed == 1)


class Speller(nn.Module):
    """Reads letters in order; its output layer shares the embedding's weights."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.memory = nn.LSTM(5, 5, batch_first=True) if recurrent else None
        self.mix = nn.Linear(5, 5)
        self.out = nn.Linear(5, 7)
        self.out.weight = self.embedding.weight

    def forward(self, letters: torch.Tensor) -> torch.Tensor:  # (B, T) -> (B, T, 7)
        hidden = self.embedding(letters)
        if self.memory is not None:
            return self.out(self.memory(hidden)[0])
        return self.out(F.gelu(self.mix(hidden) + hidden.cumsum(dim=1)))


class SpellingTrainer(Kit, BaseTrainer):
    """Tied weights, an LSTM where asked for, accumulation over 3 batches, a schedule by the step; Adam with L2.

    209 samples in batches of 4: 53 batches, so the last batch has 1 sample and the last step input 2 batches. The loss
    is a mean over the letters that are no padding, whose number differs from batch to batch.
    """

    def __init__(self, folder: Path, recurrent: bool = False, **changes: Any) -> None:
        usual = {"epochs": 12, "batch_size": 4, "learning_rate": 5e-3, "accumulation_steps": 3}
        config = settings(folder, **{**usual, **changes})
        self.model = Speller(recurrent)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, weight_decay=1e-3)
        total = config.epochs * -(-53 // config.accumulation_steps)
        loaders = TensorLoader(_words(209, 1), 4, shuffle=True), TensorLoader(_words(30, 2), 4)
        self.furnish(config, loaders, optimizer, warmup_cosine(optimizer, 20, total))

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores, goal = self.model(batch["letters"][:, :-1]), batch["letters"][:, 1:]
        real = goal > 0
        count = real.sum()
        self._set_loss_count(count)
        losses = F.cross_entropy(scores.flatten(0, 1), goal.flatten(), reduction="none")
        return (losses * real.flatten()).sum() / count


def _words(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(1, 7, (count, 1), generator=generator)
    letters = 1 + (first + torch.arange(4)) % 6
    lengths = torch.randint(2, 5, (count, 1), generator=generator)
    return {"letters": torch.where(torch.arange(4) < lengths, letters, 0)}


class Scaled(nn.Module):
    """A loss with a parameter of its own: squared errors by a learned noise level."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.zeros(shape))

    def forward(self, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return ((output - goal).square() * torch.exp(-self.log_noise) + self.log_noise).mean()


class DoubleTrainer(Kit, BaseTrainer):
    """A float64 model, a loss with a parameter, two groups of AdamW with settings of their own, clipping that bites."""

    def __init__(self, folder: Path, noise_shape: tuple[int, ...] = (1,), **changes: Any) -> None:
        usual = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "gradient_clip_value": 0.05}
        config = settings(folder, **{**usual, **changes})
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)).double()
        self.loss_fn = Scaled(noise_shape).double()
        groups = [
            {"params": list(self.model.parameters()), "weight_decay": 0.1},
            {"params": list(self.loss_fn.parameters()), "lr": 2e-2, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        loaders = (TensorLoader(_pairs(409, 1), config.batch_size, shuffle=True), TensorLoader(_pairs(61, 2), 16))
        self.furnish(config, loaders, optimizer)

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.loss_fn(self.model(batch["x"]), batch["y"])


def _pairs(count: int, seed: int) -> dict[str, torch.Tensor]:
    x = numbers(count, 4, seed=seed, dtype=torch.float64)
    return {"x": x, "y": torch.sin(x @ numbers(4, 2, seed=9, dtype=torch.float64))}


# ------------------------------------------------------------------------------------- one trainer, any loss function


class HookTrainer(Kit, BaseTrainer):
    """A small regression whose loss function a test gives.

    Args:
        folder: where the run goes.
        hook: maps (trainer, output, goal) to the loss.
        optimizer: makes one of parameters.
        train_loader: another one than the usual.
        model: another one than the usual.
        attributes: of the trainer, by name.
        changes: of the config.
    """

    usual: ClassVar[dict[str, Any]] = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2}

    def __init__(
        self,
        folder: Path,
        hook: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        train_loader: Any = None,
        model: nn.Module | None = None,
        scheduler: Callable[[Any], Any] = lambda optimizer: None,
        attributes: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        config = settings(folder, **{**self.usual, **changes})
        self.model = model or nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.1), nn.Linear(6, 2))
        torch.manual_seed(config.seed)  # whatever the model and the loss function drew when the test made them
        self.hook = hook or (lambda trainer, output, goal: F.mse_loss(output, goal))
        for name, value in (attributes or {}).items():
            setattr(self, name, value)
        made = optimizer(self.model.parameters(), lr=config.learning_rate)
        train = train_loader or regression(93, 1, config.batch_size)
        self.furnish(config, (train, regression(29, 2, config.batch_size)), made, scheduler(made))

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        dtype = next(self.model.parameters()).dtype
        batch = {name: tensor.to(self.device, dtype) for name, tensor in batch.items()}
        return self.hook(self, self.model(batch["x"]), batch["y"])


def regression(count: int, seed: int, batch_size: int) -> TensorLoader:
    """Rows of four numbers and two to be found from them; shuffled with seed 1."""
    x = numbers(count, 4, seed=seed)
    return TensorLoader({"x": x, "y": torch.sin(x @ numbers(4, 2, seed=9))}, batch_size, shuffle=seed == 1)


def probed_run(trainer_class: type, folder: Path, **options: Any) -> Any:
    """Build a trainer as `--check` and the searches do, and return its run."""
    with quiet_log():
        return build_for_probing(lambda: trainer_class(folder, **options))
