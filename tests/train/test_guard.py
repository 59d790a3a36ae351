"""Numbers that go wrong in the middle of an epoch: weights stay those of before the bad step, in every form of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from step_trainers import HookTrainer, numbers, recorded_only
from torch import nn

from data.tensor_loader import TensorLoader
from train.callbacks.loss_spikes import LossSpikes
from train.errors import TrainingError
from train.session import machine_for
from train.steps import Guard

ROWS, SIZE, STEPS_BEFORE = 203, 4, 9
MARK = 77.0  # in y: this is the bad sample


def bad_number(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, torch.where(goal == MARK, torch.nan, goal))


def bad_loss_only(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal * (goal != MARK)) + torch.where(goal == MARK, torch.inf, 0.0).sum()


def bad_gradient_only(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return (output * (goal != MARK)).square().sqrt().mean()


HOOKS = {"loss and gradient": bad_number, "loss only": bad_loss_only, "gradient only": bad_gradient_only}
OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1),
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "foreach": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr, foreach=True),
    "rmsprop": torch.optim.RMSprop,
}


def judged_on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tensors judge, as they do where reading one would wait for a device."""
    init = Guard.__init__

    def not_on_host(self: Guard, *given: Any) -> None:
        init(self, *given)
        self.on_host = False

    monkeypatch.setattr(Guard, "__init__", not_on_host)


def rows(poisoned: bool, accumulated: int = 1) -> TensorLoader:
    """A loader one of whose samples, in the tenth step of epoch 1, is marked."""
    x = numbers(ROWS, 4)
    y = torch.sin(x @ numbers(4, 2, seed=9))
    if poisoned:
        order = torch.cat(list(TensorLoader(torch.arange(ROWS), SIZE, shuffle=True)))
        y[order[STEPS_BEFORE * SIZE * accumulated + 1]] = MARK
    return TensorLoader({"x": x, "y": y}, SIZE, shuffle=True)


def trainer_of(folder: Path, poisoned: bool, hook: str, **changes: Any) -> HookTrainer:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.1), nn.Linear(6, 2))
    if changes.pop("double", False):
        model = model.double()
    usual = {"model": model, "batch_size": SIZE, "epochs": 2, "saving_share": 1.0}
    loader = rows(poisoned, changes.get("accumulation_steps", 1))
    return HookTrainer(folder, hook=HOOKS[hook], train_loader=loader, **{**usual, **changes})


def weights(trainer: HookTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_weights_of_before(folder: Path, hook: str, **changes: Any) -> HookTrainer:
    """Train with and without the bad sample, and compare."""
    good = trainer_of(folder / "good", False, hook, **changes)
    good.model.train()
    run = good.run_context
    if hasattr(run.step, "_chunk"):
        run.step._chunk = STEPS_BEFORE
    with machine_for(run):
        for step_input in run.position.remaining(run.step, good.train_loader):
            if run.position.steps == STEPS_BEFORE:
                break
            run.step(step_input)
            run.position.advance(step_input.steps)
    bad = trainer_of(folder / "bad", True, hook, **changes)
    with pytest.raises(TrainingError, match=f"step {STEPS_BEFORE + 1} of epoch 1"):
        bad.train()
    expected, found = weights(good), weights(bad)
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different
    saved = load_file(bad.run_folder.path / "failure" / "weights.safetensors")
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    return bad


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_bad_step_changes_a_weight(optimizer, hook, tmp_path):
    bad = assert_weights_of_before(tmp_path, hook, optimizer=OPTIMIZERS[optimizer])
    assert list((bad.run_folder.path / "checkpoints").glob("*")) == [], "what is bad is not saved"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_clip_value": 0.0},
        {"accumulation_steps": 2},
        {"double": True},
        {"ema_decay": 0.9},
        {"log_every_n_steps": 3},
        {"precision": "bf16"},
        {"checkpoint_every_n_steps": 11},
    ],
    ids=str,
)
def test_whatever_is_set(changes, hook, tmp_path):
    assert_weights_of_before(tmp_path, hook, **changes)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("form", ["compiled", "epoch"])
def test_in_the_fast_forms(form, hook, tmp_path, monkeypatch):
    with recorded_only(monkeypatch):
        torch._dynamo.reset()
        bad = assert_weights_of_before(tmp_path, hook, step=form)
    assert bad.run_context.step.fast


def test_a_chunk_is_done_again_with_the_same_learning_rates(tmp_path, monkeypatch):
    """A schedule by the step goes back with the weights, and the plain numbers of the optimizer too."""
    from train.schedulers import warmup_cosine

    with recorded_only(monkeypatch):
        torch._dynamo.reset()
        assert_weights_of_before(
            tmp_path, "gradient only", step="epoch", scheduler=lambda optimizer: warmup_cosine(optimizer, 5, 200)
        )


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("optimizer", ["adam", "momentum", "rmsprop"])
def test_as_on_a_device_where_the_host_does_not_know(optimizer, hook, tmp_path, monkeypatch):
    judged_on_device(monkeypatch)
    assert_weights_of_before(tmp_path, hook, optimizer=OPTIMIZERS[optimizer])


@pytest.mark.parametrize("hook", HOOKS)
def test_the_compiled_form_as_on_a_device(hook, tmp_path, monkeypatch):
    judged_on_device(monkeypatch)
    with recorded_only(monkeypatch):
        torch._dynamo.reset()
        assert assert_weights_of_before(tmp_path, hook, step="compiled").run_context.step.fast


def test_a_scaled_loss_as_on_a_device(tmp_path, monkeypatch):
    judged_on_device(monkeypatch)
    assert_weights_of_before(tmp_path, "loss only", precision="fp16")


@pytest.mark.parametrize("hook", ["loss and gradient", "loss only"])
def test_with_a_scaled_loss(hook, tmp_path, monkeypatch):
    """fp16: gradients may overflow, which the scaler sees to; a loss that isn't finite ends the run all the same."""
    assert_weights_of_before(tmp_path, hook, precision="fp16")


def test_a_stop_that_comes_after_a_bad_step_saves_nothing_of_it(tmp_path):
    bad = trainer_of(tmp_path, True, "gradient only", log_every_n_steps=1000)
    advance = bad.run_context.position.advance

    def stop(steps: int, batches: int) -> None:
        advance(steps, batches)
        if bad.run_context.position.steps == STEPS_BEFORE + 3:
            bad.stop_request.number = 15

    bad.run_context.position.advance = stop
    with pytest.raises(TrainingError, match=f"step {STEPS_BEFORE + 1} of epoch 1"):
        bad.train()
    assert list((bad.run_folder.path / "checkpoints").glob("*")) == []


def test_a_bad_validation_ends_the_run_and_is_not_the_trainings_fault(tmp_path):
    trainer = trainer_of(tmp_path, False, "loss and gradient")
    trainer.val_loader.tensors["y"][13] = MARK
    with pytest.raises(TrainingError, match="validation after epoch 1") as error:
        trainer.train()
    assert "13" in str(error.value)
    report = json.loads((trainer.run_folder.path / "failure" / "report.json").read_text())
    assert report["split"] == "val"
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.state_dict().values())


def test_weights_that_were_never_finite_are_named(tmp_path):
    trainer = trainer_of(tmp_path, False, "loss and gradient")
    with torch.no_grad():
        trainer.model[4].bias[1] = torch.inf
    with pytest.raises(TrainingError, match=r"4\.bias"):
        trainer.train()


@pytest.mark.parametrize("factor", [0.0, 5.0])
def test_a_loss_that_jumps_is_told_where_somebody_asks(factor, tmp_path, caplog):
    def jumping(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        high = trainer.model.training and trainer.record.progress.step in (30, 31)
        return F.mse_loss(output, goal) * (50.0 if high else 1.0)

    HookTrainer(tmp_path, jumping, epochs=4, log_every_n_steps=4, loss_spike_factor=factor).train()
    told = [record.getMessage() for record in caplog.records if "the loss jumped" in record.getMessage()]
    assert len(told) == (factor > 0)
    assert not told or "in the steps up to 32, " in told[0]


def test_a_loss_that_counts_nothing_is_no_jump(caplog):
    spikes = LossSpikes(2.0, lambda: 0.0)
    for step, samples in enumerate([0, 0, 4, 4, 8, 0, 4], 1):  # in the third, an epoch ends
        spikes.compare(1.0, samples, step)
    assert not caplog.records
