"""Members that are trained at once are what they are alone."""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commands.seeds.choice import why_sequential
from commands.seeds.group import Group, Member
from commands.seeds.lockstep import train_in_lockstep
from commands.seeds.noise import take_out_noise
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
from train.compiled.program import ImpureLoss, LossProgram
from train.errors import TrainingError
from train.loop.stop_signals import Interrupted
from train.seeding import seed_everything

from step_trainers import (  # isort: skip
    DoubleTrainer,
    HookTrainer,
    Kit,
    NormTrainer,
    SpellingTrainer,
    numbers,
    regression,
    run,
    settings,
)

Make = Callable[..., Any]


class LoneGroup(Group):
    """A group whose file nobody wants."""

    def write(self, state: str) -> None:
        """Write nothing."""


def seeded(make: Make, folder: Path, seed: int, **changes: Any) -> Any:
    """Build a trainer as its own run would: initial weights, data order and dropout follow from the seed."""
    trainer = make(folder, seed=seed, **changes)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainer.train_loader.seed = seed
    seed_everything(seed)
    return trainer


def both(make: Make, folder: Path, seeds: int = 3, **changes: Any) -> tuple[list[Any], list[Any], Group]:
    """Train one after the other, and at once; returns the trainers of either way, and the group."""
    alone = [seeded(make, folder / "alone", seed, **changes) for seed in range(seeds)]
    for seed, trainer in enumerate(alone):
        seed_everything(seed)
        trainer.train()
    found: list[Any] = []

    def build() -> Iterator[Any]:
        for seed in range(seeds):
            found.append(seeded(make, folder / "together", seed, **changes))
            yield found[-1]

    group = LoneGroup("x", [Member(seed) for seed in range(seeds)], how="at once")
    train_in_lockstep(group, build())
    return alone, found, group


def difference(alone: Any, other: Any) -> float:
    """Return the largest difference of a tensor after the last epoch, relative to its largest number."""
    worst = 0.0
    for name, tensor in alone.last.items():
        scale = tensor.double().abs().max().clamp(min=1e-12)
        worst = max(worst, float((tensor.double() - other.last[name].double()).abs().max() / scale))
    return worst


def assert_alike(alone: list[Any], others: list[Any], tolerance: float) -> None:
    for one, other in zip(alone, others, strict=True):
        assert difference(one, other) <= tolerance
        assert one.rates[-len(other.rates) :] == other.rates and torch.equal(one.random, other.random)
        assert one.record.progress.step == other.record.progress.step
        assert one.history.keys() == other.history.keys()
        for name, values in one.history.items():
            assert other.history[name] == pytest.approx(values, rel=max(tolerance, 1e-12), abs=1e-12), name


def test_in_float64_nothing_differs_but_the_order_of_sums(tmp_path):
    """AdamW in two groups, dropout, clipping that bites, a short last batch, members that stop early: 208 to 260 steps.

    1e-12 after 200 steps is proof that data order, dropout, clipping, schedule and stopping are each member's own.
    """
    changes = dict(early_stopping_patience=1, epochs=5, learning_rate=0.05)
    alone, others, group = both(DoubleTrainer, tmp_path, **changes)
    assert group.how == "at once"
    assert_alike(alone, others, 1e-12)
    epochs = [trainer.record.progress.epoch for trainer in others]
    assert len(set(epochs)) > 1, "some stop before others"
    assert difference(others[0], others[1]) > 1e-2, "members differ from one another"


@pytest.mark.slow
def test_in_float32_with_batch_norm_and_a_plateau(tmp_path):
    """SGD with Nesterov momentum, running statistics, a frozen layer, metrics, class weights: 106 steps."""
    alone, others, group = both(NormTrainer, tmp_path, epochs=2)
    assert group.how == "at once"
    assert_alike(alone, others, 1e-5)


@pytest.mark.slow
def test_a_schedule_by_the_step_tied_weights_and_counted_losses(tmp_path):
    alone, others, group = both(SpellingTrainer, tmp_path, epochs=2, accumulation_steps=1)
    assert group.how == "at once"
    assert_alike(alone, others, 1e-5)
    assert len({tuple(rates) for rates in others[0].rates}) > 1


class Growing(TensorLoader):
    """Batches of 2, 4, 6, ... rows."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        rows = self.epoch_rows()
        sizes = list(range(2, 2 * len(self) + 2, 2))
        parts = {name: tensor.split(sizes) for name, tensor in rows.items()}
        return iter([{name: part[n] for name, part in parts.items()} for n in range(len(self))])

    def __len__(self) -> int:
        return 6


@pytest.mark.slow
def test_batches_of_too_many_shapes_are_done_one_by_one(tmp_path):
    def make(folder: Path, **changes: Any) -> Any:
        kept = regression(42, 1, 7).tensors
        loader = Growing({name: tensor.double() for name, tensor in kept.items()}, 7, shuffle=True)
        model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2)).double()
        for number, parameter in enumerate(model.parameters()):
            parameter.data = numbers(*parameter.shape, seed=number, dtype=torch.float64)
        return HookTrainer(folder, model=model, train_loader=loader, **changes)

    alone, others, group = both(make, tmp_path, 2, log_every_n_steps=1, loss_spike_factor=1.01)
    assert group.how == "at once"
    assert_alike(alone, others, 1e-12)


def noisy(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Draw in three ways besides dropout."""
    if not trainer.model.training:
        return F.mse_loss(output, goal)
    kept = torch.rand_like(output) > 0.1
    wide = torch.empty(output.shape[1], output.shape[0], dtype=output.dtype).normal_(0.0, 0.05)
    return F.mse_loss(torch.where(kept, output, 0) + 0.05 * torch.randn_like(output) + wide.T, goal)


@pytest.mark.slow
def test_other_random_numbers_are_each_members_own(tmp_path):
    def make(folder: Path, **changes: Any) -> Any:
        model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2)).double()
        for number, parameter in enumerate(model.parameters()):
            parameter.data = numbers(*parameter.shape, seed=number, dtype=torch.float64)
        return HookTrainer(folder, hook=noisy, model=model, **changes)

    alone, others, group = both(make, tmp_path)
    assert group.how == "at once"
    assert_alike(alone, others, 1e-12)


def test_a_member_whose_numbers_go_wrong_leaves_the_others_alone(tmp_path, caplog):
    def make(folder: Path, **changes: Any) -> Any:
        loader = regression(93, 1, 8)
        if changes["seed"] == 1:
            loader.tensors["x"] = loader.tensors["x"].clone()
            loader.tensors["x"][40, 2] = math.nan
        return HookTrainer(folder, train_loader=loader, **changes)

    alone = [seeded(make, tmp_path / "alone", seed) for seed in range(3)]
    for seed, trainer in enumerate(alone):
        seed_everything(seed)
        if seed == 1:
            with pytest.raises(TrainingError) as error:
                trainer.train()
        else:
            trainer.train()
    others: list[Any] = []

    def build() -> Iterator[Any]:
        for seed in range(3):
            others.append(seeded(make, tmp_path / "together", seed))
            yield others[-1]

    train_in_lockstep(LoneGroup("x", [Member(seed) for seed in range(3)], how="at once"), build())
    assert_alike([alone[0], alone[2]], [others[0], others[2]], 1e-5)
    first, second = (json.loads((t.run_folder.path / "metrics.json").read_text()) for t in (alone[1], others[1]))
    assert first["state"] == second["state"] == "failed"
    assert first["error"].splitlines()[:2] == second["error"].splitlines()[:2] and "sample 40" in second["error"]
    assert str(error.value).splitlines()[0] in first["error"]
    for one, other in zip(alone[1].model.parameters(), others[1].model.parameters(), strict=True):
        assert torch.isfinite(other).all() and torch.allclose(one, other, rtol=1e-4)
    report = json.loads((others[1].run_folder.path / "failure/report.json").read_text())
    assert report["finding"]["kind"] == "batch"
    assert [record.message for record in caplog.records if "seed 1 failed: numbers went wrong" in record.message]


@pytest.mark.slow
def test_members_that_are_stopped_save_themselves_and_go_on_alone(tmp_path):
    """SIGTERM comes in the validation of the second of three members, in the second epoch; all in float64."""
    armed = []

    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        if armed and not trainer.model.training and trainer.config.seed == 1 and trainer.record.progress.epoch == 2:
            os.kill(os.getpid(), armed.pop())
        return F.mse_loss(output, goal)

    def make(folder: Path, **changes: Any) -> Any:
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2)).double()
        for number, parameter in enumerate(model.parameters()):
            parameter.data = numbers(*parameter.shape, seed=number, dtype=torch.float64)
        loader = regression(93, 1, 8)
        loader.seed = changes["seed"]
        return HookTrainer(folder, hook=hook, model=model, train_loader=loader, saving_share=1.0, epochs=4, **changes)

    alone = [seeded(make, tmp_path / "alone", seed) for seed in range(3)]
    for seed, trainer in enumerate(alone):
        seed_everything(seed)
        trainer.train()
    armed.append(signal.SIGTERM)
    stopped: list[Any] = []

    def build() -> Iterator[Any]:
        for seed in range(3):
            stopped.append(seeded(make, tmp_path / "together", seed))
            yield stopped[-1]

    with pytest.raises(Interrupted, match="SIGTERM"):
        train_in_lockstep(LoneGroup("x", [Member(seed) for seed in range(3)], how="at once"), build())
    for trainer in stopped:
        assert json.loads((trainer.run_folder.path / "metrics.json").read_text())["state"] == "interrupted"
        assert 2 <= trainer.record.progress.epoch < 4
    gone_on = []
    for seed, trainer in enumerate(stopped):
        gone_on.append(run(make, tmp_path / "together", resume=trainer.run_folder.id, seed=seed))
    assert_alike(alone, gone_on, 1e-12)


@pytest.mark.slow
def test_a_hook_that_changes_goes_on_one_after_the_other(tmp_path, caplog):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output, goal) * (3 if trainer.record.progress.epoch >= 1 else 1)

    alone, others, group = both(lambda folder, **changes: HookTrainer(folder, hook=hook, **changes), tmp_path, 2)
    told = "the loss function is another one than at the start: "
    assert group.how == "one after the other" and group.why.startswith(told)
    assert f"seeds at once are not possible, going on one after the other: {told}" in caplog.text
    assert_alike(alone, others, 1e-5)


def test_a_hook_that_fails_when_members_go_on_alone_ends_its_own_run_only(tmp_path):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        if trainer.config.seed == 0 and trainer.record.progress.epoch == 1 and trainer.model.training:
            raise TrainingError("no more of this seed")
        return F.mse_loss(output, goal) * (1 if output.sum().item() > 0 else 2)

    trainers = [seeded(lambda folder, **k: HookTrainer(folder, hook=hook, **k), tmp_path, seed) for seed in range(2)]
    train_in_lockstep(LoneGroup("x", [Member(seed) for seed in range(2)], how="at once"), iter(trainers))
    told = [json.loads((trainer.run_folder.path / "metrics.json").read_text()) for trainer in trainers]
    assert [one["state"] for one in told] == ["failed", "finished"]
    assert told[0]["error"] == "TrainingError: no more of this seed"


def slow(*values: Any) -> Any:
    """A case that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        slow(
            lambda t, o, g: F.mse_loss(o, g) * (1 if o.sum().item() > 0 else 2),
            "the loss function needs the value of a tensor",
        ),
        slow(lambda t, o, g: F.mse_loss(o[torch.randperm(len(o))], g), "it draws random numbers by aten.randperm"),
        slow(
            lambda t, o, g: F.mse_loss(o, g) * (1 + t.config.seed),
            "the operations of one seed's loss function are not those",
        ),
        slow(lambda t, o, g: o[o > 0].sum() + F.mse_loss(o, g), "torch.func.vmap can't compute it: RuntimeError: "),
    ],
    ids=["value", "random", "different", "shape"],
)
def test_what_is_no_program_is_trained_one_after_the_other(hook, reason, tmp_path):
    def make(folder: Path, **changes: Any) -> Any:
        return HookTrainer(folder, hook=hook, epochs=1, **changes)

    alone, others, group = both(make, tmp_path, 2)
    assert group.how == "one after the other" and reason in group.why
    assert_alike(alone, others, 0.0)


def test_random_numbers_that_depend_on_values_are_refused(tmp_path):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output * torch.bernoulli(output.detach().sigmoid()), goal)

    trainer = HookTrainer(tmp_path, hook=hook)
    trainer.model.train()
    batch = next(iter(trainer.train_loader))
    program = LossProgram(trainer.run_context, batch, list(trainer.model.parameters()))
    with pytest.raises(ImpureLoss, match="it draws random numbers by aten.bernoulli.default, which is not known"):
        take_out_noise(program.graph)


class LoopTrainer(Kit, BaseTrainer):
    """A trainer with a loop of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.model = nn.Linear(4, 2)
        loaders = regression(93, 1, 8), regression(29, 2, 8)
        self.furnish(settings(folder, **changes), loaders, torch.optim.Adam(self.model.parameters()))

    def compute_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.mse_loss(self.model(batch["x"]), batch["y"])

    def train(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("make", "changes", "reason"),
    [
        (HookTrainer, {"epochs": 1000}, None),
        (HookTrainer, {}, "recording the loss functions takes about 1.3 s and saves about 0.06 s of 36 steps"),
        (LoopTrainer, {}, "LoopTrainer has a train() of its own"),
        (HookTrainer, {"step": "epoch"}, "step = epoch is asked for"),
        (HookTrainer, {"step": "auto", "epochs": 10**6}, "step = epoch is faster: compiling takes about"),
        (HookTrainer, {"accumulation_steps": 2}, "accumulation_steps = 2 is for one after the other only"),
        (HookTrainer, {"ema_decay": 0.9}, "ema_decay = 0.9 is for one after the other only"),
        (HookTrainer, {"precision": "bf16"}, "precision = bf16 rounds other products"),
        (HookTrainer, {"optimizer": torch.optim.RMSprop}, "RMSprop as it is set up is none of plain Adam"),
        (HookTrainer, {"batch_size": 2**21}, "MFLOP, so what surrounds it hardly counts"),
    ],
)
def test_choice(make, changes, reason, tmp_path):
    found = why_sequential(make(tmp_path, **changes).run_context, seeds=8)
    assert (found is None) if reason is None else (reason in found)


def test_choice_of_a_loader(tmp_path):
    loader = torch.utils.data.DataLoader([{"x": torch.zeros(4), "y": torch.zeros(2)}] * 30, 8)
    found = why_sequential(HookTrainer(tmp_path, train_loader=loader).run_context, seeds=8, faster_only=False)
    assert found == "train_loader is a DataLoader, whose samples may draw random numbers at any batch"
    assert why_sequential(HookTrainer(tmp_path).run_context, seeds=8, faster_only=False) is None
