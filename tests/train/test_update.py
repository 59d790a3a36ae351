"""The update by the gradients is torch's own, and accumulated batches are one big batch."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from train.steps import EagerStep, StepInput, Update

from step_trainers import (  # isort: skip
    HookTrainer,
    numbers,
    recorded_only,
    regression,
    run,
    snapshot,
)

FORMS = ("epoch", "compiled")

# --------------------------------------------------------------------------------------------------------- update

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), fused=True),
    "adamw, groups": lambda p: torch.optim.AdamW(
        [{"params": p[:1], "lr": 0.3, "weight_decay": 0.0}, {"params": p[1:]}], lr=0.1, weight_decay=0.2, fused=True
    ),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1, fused=True),
    "sgd, nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "single": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False, fused=False),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
}


class Twins:
    """Two optimizers over equal parameters: one stepped by torch, one by Update, with the same gradients."""

    def __init__(self, optimizer: str, clip: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        shapes = ((5, 3), (5,), (2, 2, 2))
        self.parameters = [
            [nn.Parameter(numbers(*shape, seed=seed, dtype=dtype)) for seed, shape in enumerate(shapes)] for _ in "ab"
        ]
        self.optimizers = [OPTIMIZERS[optimizer](parameters) for parameters in self.parameters]
        self.clip, self.dtype, self.seed = clip, dtype, 100
        self.update = Update(self.optimizers[1], clip)

    def step(self, times: int = 1, without: int | None = None) -> None:
        """Step both; the parameter `without` gets no gradient."""
        for _ in range(times):
            self.seed += 10
            for parameters in self.parameters:
                for number, parameter in enumerate(parameters):
                    gradient = numbers(*parameter.shape, seed=self.seed + number, dtype=self.dtype)
                    parameter.grad = None if number == without else gradient
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters[0], self.clip)
            self.optimizers[0].step()
            self.update()

    def both(self, change: Any) -> None:
        """Do something to both optimizers."""
        for optimizer in self.optimizers:
            change(optimizer)

    def compare(self, tolerance: float = 0.0) -> None:
        """Compare parameters and states."""
        states = [
            [value for p in parameters for value in (p.detach(), *optimizer.state.get(p, {}).values())]
            for parameters, optimizer in zip(self.parameters, self.optimizers, strict=True)
        ]
        assert len(states[0]) == len(states[1])
        for expected, found in zip(*states, strict=True):
            if tolerance:
                torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
            else:
                assert torch.equal(found, expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_update_is_torchs_own_to_the_bit(optimizer, dtype):
    twins = Twins(optimizer, dtype=dtype)
    twins.step(20)
    twins.compare()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [1e-2, 5.0, 1e3])
def test_update_clips_as_torch_does(optimizer, clip):
    """Norms are about 5: one value clips always, one sometimes, one never."""
    twins = Twins(optimizer, clip=clip)
    twins.step(20)
    twins.compare(1e-6 if optimizer != "rmsprop" else 1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd, nesterov"])
def test_clipping_keeps_the_digits_of_float64(optimizer):
    twins = Twins(optimizer, clip=1e-2, dtype=torch.float64)
    twins.step(20)
    twins.compare(1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "adamw, groups", "sgd, nesterov"])
def test_update_follows_whatever_happens_to_the_optimizer(optimizer):
    twins = Twins(optimizer)
    twins.step(3)
    saved = [{**o.state_dict(), "state": _cloned(o.state_dict()["state"])} for o in twins.optimizers]
    twins.step(2)
    for one, state in zip(twins.optimizers, saved, strict=True):
        one.load_state_dict(state)
    twins.step(3)
    twins.compare()
    twins.both(lambda o: o.state.clear())
    twins.step(3)
    twins.compare()
    twins.both(lambda o: o.param_groups[0].update(lr=0.01, weight_decay=0.3))
    twins.step(3)
    twins.compare()


def _cloned(states: dict[Any, Any]) -> dict[Any, Any]:
    return {key: {name: value.clone() for name, value in state.items()} for key, state in states.items()}


@pytest.mark.parametrize("optimizer", ["adam", "sgd, nesterov", "sgd"])
def test_a_parameter_that_never_has_a_gradient_is_left_alone(optimizer):
    twins = Twins(optimizer)
    twins.step(4, without=1)
    twins.compare()
    assert torch.equal(twins.parameters[1][1], numbers(5, seed=1))


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "adamw",
        "sgd, nesterov",
    ],
)
def test_a_gradient_that_is_missing_once_changes_nothing_else(optimizer):
    twins = Twins(optimizer)
    twins.step(4)
    twins.step(2, without=1)
    twins.step(4)
    twins.compare()


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "adamw, groups",
        "sgd, nesterov",
    ],
)
def test_parameters_that_join_later_change_nothing_for_the_others(optimizer):
    twins = Twins(optimizer)
    twins.step(3)
    for one, parameters in zip(twins.optimizers, twins.parameters, strict=True):
        parameters.append(nn.Parameter(numbers(3, seed=77)))
        one.add_param_group({"params": parameters[-1:], "lr": 0.5})
    twins.step(3)
    twins.compare()


def test_a_step_of_the_optimizers_own_between_updates_counts_once():
    """Also what any other optimizer does that gets this one's state through load_state_dict."""
    twins = Twins("adam")
    twins.step(3)
    twins.both(lambda o: o.step())
    twins.compare()


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sgd, nesterov"])
@pytest.mark.parametrize("moment", ["before", "built", "later"])
def test_hooks_of_the_optimizer_are_called_at_each_step(optimizer, moment):
    """A trainer's own lines come after `super().__init__()`, so a loss function may be newer than Update."""
    parameter = nn.Parameter(torch.ones(3))
    made = OPTIMIZERS[optimizer]([parameter])
    calls: list[int] = []
    if moment == "before":
        made.register_step_post_hook(lambda *_: calls.append(1))
    update = Update(made)
    for number in range(4):
        if (moment, number) in (("built", 0), ("later", 2)):
            made.register_step_post_hook(lambda *_: calls.append(1))
        parameter.grad = torch.ones(3)
        update()
    assert len(calls) == (2 if moment == "later" else 4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sgd, nesterov"])
def test_a_scheduler_sees_that_the_optimizer_stepped(optimizer):
    parameter = nn.Parameter(torch.ones(3))
    made = OPTIMIZERS[optimizer]([parameter])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = torch.optim.lr_scheduler.StepLR(made, 1, gamma=0.5)
        update = Update(made)
        for _ in range(3):
            parameter.grad = torch.ones(3)
            update()
            scheduler.step()
    assert made.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_an_optimizer_whose_author_chose_a_form_keeps_it():
    for name in ("foreach", "single"):
        twins = Twins(name)
        assert not twins.optimizers[1].param_groups[0].get("fused")
        assert twins.optimizers[1].param_groups[0]["foreach"] == (name == "foreach")


# --------------------------------------------------------------------------------------------------- accumulation


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 8, 3), (8, 1), (5,)])
def test_accumulation_is_the_big_batch(clip, sizes):
    """In float64, where only a wrong weight could make a difference. The last batches of an epoch are unequal."""
    rows = numbers(sum(sizes), 4, dtype=torch.float64)
    found = []
    for batches in ([rows], list(rows.split(list(sizes)))):
        model = nn.Linear(4, 2).double()
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.3)
        seen = [0]

        def forward(batch: torch.Tensor, model: nn.Module = model, seen: list[int] = seen) -> torch.Tensor:
            seen[0] = len(batch)
            return (model(batch).square() + model(batch)).mean()

        update = Update(torch.optim.SGD(model.parameters(), lr=0.5), clip)
        EagerStep(forward, update, lambda seen=seen: seen[0], len(batches))(StepInput(batches))
        found.append([parameter.detach() for parameter in model.parameters()])
    for big, accumulated in zip(*found, strict=True):
        torch.testing.assert_close(accumulated, big, rtol=1e-12, atol=1e-12)


def masked_hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """A mean over the goals above zero, of which each batch has another number."""
    mask = (goal > 0).to(output.dtype)
    trainer._set_loss_count(mask.sum())
    return ((output - goal).square() * mask).sum() / mask.sum()


@pytest.mark.parametrize("form", ["eager", *FORMS])
@pytest.mark.parametrize("rows", [60, 53])
def test_unequal_counts_give_the_gradient_of_the_big_batch(form, rows, tmp_path, monkeypatch):
    """Batches of 5, 4 to a step input, against batches of 20; 53 rows leave a short batch and a short step input."""
    with recorded_only(monkeypatch):
        trainers = []
        for batch_size, accumulated, step in ((20, 1, "eager"), (5, 4, form)):
            model = nn.Linear(4, 2).double()
            for parameter in model.parameters():
                nn.init.constant_(parameter, 0.3)
            loader = regression(rows, 1, batch_size)
            folder = tmp_path / f"{step}{batch_size}"
            changes = {"batch_size": batch_size, "accumulation_steps": accumulated, "step": step, "epochs": 2}
            changes["optimizer"] = torch.optim.SGD
            made = run(HookTrainer, folder, hook=masked_hook, model=model, train_loader=loader, **changes)
            trainers.append(made)
    assert form == "eager" or trainers[1].run_context.step.fast
    for name, value in snapshot(trainers[0]).items():
        torch.testing.assert_close(trainers[1].last[name], trainers[0].last[name], rtol=1e-12, atol=1e-12)
        assert value.dtype == torch.float64
    assert trainers[1].history["train_loss"] == pytest.approx(trainers[0].history["train_loss"], rel=1e-12)


@pytest.mark.parametrize("kind", [torch.tensor, float])
def test_a_first_batch_without_anything_to_count_weighs_nothing(kind):
    parameter = nn.Parameter(torch.ones(3))
    count = [0]

    def forward(batch: int) -> torch.Tensor:
        count[0] = kind(batch)
        return (parameter * batch).sum()

    step = EagerStep(forward, Update(torch.optim.SGD([parameter], lr=0.1)), lambda: count[0], 2)
    step(StepInput([0, 3]))
    assert parameter.detach().tolist() == pytest.approx([0.7] * 3)
