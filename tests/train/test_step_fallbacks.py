"""Where a fast form can't be what eager is: it says why, goes on in eager form, and the result is eager's."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from data.tensor_loader import TensorLoader
from train.compiled import program as program_module

from step_trainers import HookTrainer, numbers, recorded_only, regression, run, run_epoch  # isort: skip

FORMS = ("epoch", "compiled")


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch):
    """Do without the compiler: what is looked at here comes before and after it."""
    with recorded_only(monkeypatch):
        yield


def both(folder: Path, form: str, make: Callable[[], dict[str, Any]], **changes: Any) -> tuple[Any, Any]:
    """Run a trainer in eager form and in another; `make` gives each its own parts."""
    return tuple(run(HookTrainer, folder / step, step=step, **make(), **changes) for step in ("eager", form))


def assert_exact(found: Any, expected: Any) -> None:
    """Compare all that a run leaves, bit by bit."""
    assert [name for name, value in expected.last.items() if not torch.equal(found.last[name], value)] == []
    assert dict(found.history) == dict(expected.history)
    assert torch.equal(found.random, expected.random)


def warned(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    """Return the warnings that begin so, less that."""
    return [text.removeprefix(start) for text in caplog.messages if text.startswith(start)]


def fell_back(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about a form that was left."""
    return [text for text in caplog.messages if "is not possible" in text or "in eager form" in text]


# -------------------------------------------------------------------------- hooks that are no function of a batch


def item(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal) / max(output.detach().abs().max().item(), 0.1)


def branch(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal) if output.mean() > 0 else F.l1_loss(output, goal)


def python_random(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal) * (1 + random.random())


def numpy_random(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal) * (1 + np.random.rand())


def number_metric(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer._collect_batch_metrics({"batches": 1.0})
    return F.mse_loss(output, goal)


def counter(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer.calls += 1
    return F.mse_loss(output, goal) * (1 + 0.01 * trainer.calls)


def counter_unused(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer.calls += 1
    return F.mse_loss(output, goal)


def appended(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    loss = F.mse_loss(output, goal)
    trainer.losses.append(loss.detach())
    return loss


def kept_tensor(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer.seen.add_(1)
    return F.mse_loss(output, goal) * (1 + 0.01 * trainer.seen)


def kept_output(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer.output = output.detach()
    return F.mse_loss(output, goal)


HOOKS = {
    item: "the loss function needs the value of a tensor while it runs (.item(), float(), if): ",
    branch: "the loss function needs the value of a tensor while it runs (.item(), float(), if): ",
    python_random: "the loss function draws random numbers from Python's random or from numpy, not from torch",
    numpy_random: "the loss function draws random numbers from Python's random or from numpy, not from torch",
    number_metric: "metric 'batches' is a Python number, which the device can't compute anew at each step",
    counter: "the loss function changes self.calls",
    counter_unused: "the loss function changes self.calls",
    appended: "the loss function changes self.losses",
    kept_tensor: "the loss function changes a tensor that it keeps (self.seen)",
    kept_output: "the loss function changes self.output",
}


def own_things() -> dict[str, Any]:
    return {"calls": 0, "losses": [], "seen": torch.zeros(()), "output": None}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_a_hook_that_cant_be_a_program_runs_as_it_is(hook, form, tmp_path, caplog):
    eager, other = both(tmp_path, form, lambda: {"hook": hook, "attributes": own_things()})
    (reason,) = warned(caplog, f"step = {form} is not possible, going on with eager: ")
    assert reason.startswith(HOOKS[hook])
    assert_exact(other, eager)


@pytest.mark.parametrize("form", FORMS)
def test_what_a_hook_keeps_in_a_dict_of_lists_is_not_lost(form, tmp_path):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(output, goal)
        trainer.kept["losses"].append(loss.detach())
        return loss

    eager, other = both(tmp_path, form, lambda: {"hook": hook, "attributes": {"kept": {"losses": []}}})
    assert len(other.kept["losses"]) == len(eager.kept["losses"]) > 36


@pytest.mark.parametrize("kind", ["numpy", "numpy legacy", "torch"])
def test_a_generator_of_the_hooks_own_is_exact_too(kind, tmp_path, caplog):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        own = trainer.generator
        factor = torch.rand((), generator=own) if kind == "torch" else own.random()
        return F.mse_loss(output, goal) * (1 + factor)

    def parts() -> dict[str, Any]:
        made = {"numpy": np.random.default_rng, "numpy legacy": np.random.RandomState}
        own = made[kind](0) if kind in made else torch.Generator().manual_seed(0)
        return {"hook": hook, "attributes": {"generator": own}}

    eager, other = both(tmp_path, "compiled", parts)
    assert warned(caplog, "step = compiled is not possible, going on with eager: ")
    assert_exact(other, eager)


# ------------------------------------------------------------------------------------ hooks that change with time


def by_epoch(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, goal) * (2.0 if trainer.record.progress.epoch >= 2 else 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_factor_that_follows_the_epoch_falls_back_in_the_epoch_in_which_it_changes(form, tmp_path, caplog):
    eager, other = both(tmp_path, form, lambda: {"hook": by_epoch}, epochs=4)
    (reason,) = warned(caplog, f"step = {form} is not possible, going on with eager: ")
    assert reason.startswith(
        "the loss function is another one in epoch 3: aten.mul.Tensor(2.0) where it was aten.mul.Tensor(1.0). What "
        "follows from the number of the step, not of the epoch, was held fixed in the epoch before"
    )
    assert other.history["train_loss"] == pytest.approx(eager.history["train_loss"], rel=1e-6)
    assert other.history["val_loss"] == pytest.approx(eager.history["val_loss"], rel=1e-6)
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("slope", [0.1, 1e-5])
def test_a_factor_that_follows_the_step_is_noticed_at_the_second_step(slope, tmp_path, caplog):
    """However little it changes: not the loss shows it, but the number that the loss function multiplies with."""

    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output, goal) * (1 + slope * trainer.record.progress.step)

    eager, other = both(tmp_path, "compiled", lambda: {"hook": hook})
    (reason,) = warned(caplog, "step = compiled is not possible, going on with eager: ")
    assert reason.startswith("the loss function is another one from step to step: aten.mul.Tensor(")
    assert_exact(other, eager)


def test_a_factor_that_changes_inside_a_later_epoch_is_noticed_at_the_next(tmp_path, caplog):
    """What the warning says: the rest of that epoch was trained with the factor that it began with."""

    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output, goal) * (1.0 if trainer.record.progress.step < 18 else 2.0)

    _, other = both(tmp_path, "epoch", lambda: {"hook": hook, "optimizer": torch.optim.SGD})
    (reason,) = warned(caplog, "step = epoch is not possible, going on with eager: ")
    assert reason.startswith("the loss function is another one in epoch 3: ")
    assert reason.endswith(
        "What follows from the number of the step, not of the epoch, was held fixed in the epoch before"
    )
    assert not other.run_context.step.fast


@pytest.mark.parametrize("form", FORMS)
def test_layers_that_are_trained_only_later_are_noticed(form, tmp_path, caplog):
    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        for parameter in trainer.model[0].parameters():
            parameter.requires_grad_(trainer.record.progress.epoch >= 1)
        return F.mse_loss(trainer.model(trainer.x[: len(goal)]), goal)

    eager, other = both(tmp_path, form, lambda: {"hook": hook, "attributes": {"x": numbers(200, 4)}})
    assert warned(caplog, f"step = {form} is not possible, going on with eager: ")
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_values_of_a_held_tensor_may_change_from_epoch_to_epoch(form, tmp_path, caplog):
    """Class weights that a trainer sets anew in place: an input of the program, not a constant of it."""

    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return ((output - goal).square() * trainer.weights).mean()

    def trained(step: str) -> Any:
        torch._dynamo.reset()
        attributes = {"weights": torch.ones(2)}
        trainer = HookTrainer(tmp_path / step, hook=hook, attributes=attributes, step=step)
        for _ in range(3):
            run_epoch(trainer)
            trainer.weights[1] += 1
        return trainer

    eager, other = trained("eager"), trained(form)
    assert other.run_context.step.fast and not fell_back(caplog)
    for expected, found in zip(eager.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------- parts that don't fit


def test_an_optimizer_without_a_rule_keeps_epoch_in_eager_form(tmp_path, caplog):
    eager, other = both(tmp_path, "epoch", lambda: {"optimizer": torch.optim.RMSprop})
    (reason,) = warned(caplog, "step = epoch is not possible, going on with eager: ")
    assert reason.startswith("RMSprop as it is set up (") and reason.endswith("can't be part of a program")
    assert_exact(other, eager)


def test_an_optimizer_without_a_rule_can_be_compiled(tmp_path, caplog):
    eager, other = both(tmp_path, "compiled", lambda: {"optimizer": torch.optim.RMSprop})
    assert other.run_context.step.fast and not fell_back(caplog)
    assert other.history["train_loss"] == pytest.approx(eager.history["train_loss"], rel=1e-6)


@pytest.mark.parametrize("setting", ["amsgrad", "foreach"])
def test_settings_without_a_rule_keep_epoch_in_eager_form(setting, tmp_path, caplog):
    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=lr, **{setting: True})

    eager, other = both(tmp_path, "epoch", lambda: {"optimizer": optimizer})
    assert warned(caplog, "step = epoch is not possible, going on with eager: Adam as it is set up (")
    assert_exact(other, eager)


def test_groups_of_which_one_has_momentum_are_exact_in_the_end(tmp_path, caplog):
    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        first, *others = parameters
        return torch.optim.SGD([{"params": [first]}, {"params": others, "momentum": 0.9}], lr=lr)

    eager, other = both(tmp_path, "epoch", lambda: {"optimizer": optimizer})
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_setting_of_the_optimizer_that_changes_is_noticed_at_the_next_epoch(tmp_path, caplog):
    def trained(step: str) -> Any:
        torch._dynamo.reset()
        trainer = HookTrainer(tmp_path / step, step=step)
        for decay in (0.0, 0.5, 0.5):
            trainer.optimizer.param_groups[0]["weight_decay"] = decay
            run_epoch(trainer)
        return trainer

    eager, other = trained("eager"), trained("epoch")
    (reason,) = warned(caplog, "step = epoch is not possible, going on with eager: ")
    assert reason.startswith(
        "the loss function is another one in epoch 2: the optimizer's weight_decay of group 0 is 0.5, it was 0"
    )
    for expected, found in zip(eager.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def plain_loader() -> DataLoader:
    x = numbers(93, 4)
    pairs = [{"x": row, "y": goal} for row, goal in zip(x, torch.sin(x @ numbers(4, 2, seed=9)), strict=True)]
    return DataLoader(pairs, batch_size=8, shuffle=True)


def test_a_plain_dataloader_keeps_epoch_in_eager_form(tmp_path, caplog):
    eager, other = both(tmp_path, "epoch", lambda: {"train_loader": plain_loader()})
    reasons = warned(caplog, "step = epoch is not possible, going on with eager: ")
    assert reasons == ["train_loader is a DataLoader; a TensorLoader has the epoch's data at hand"]
    assert_exact(other, eager)


def test_a_plain_dataloader_can_be_compiled(tmp_path, caplog):
    eager, other = both(tmp_path, "compiled", lambda: {"train_loader": plain_loader()})
    assert other.run_context.step.fast and not fell_back(caplog)
    assert other.history["train_loss"] == pytest.approx(eager.history["train_loss"], rel=1e-6)


def test_data_that_fits_only_once_keeps_epoch_in_eager_form(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(TensorLoader, "_copy_is_affordable", lambda loader: False)
    eager, other = both(tmp_path, "epoch", dict)
    reasons = warned(caplog, "step = epoch is not possible, going on with eager: ")
    assert reasons == ["the epoch's data, in its order, does not fit into memory a second time"]
    assert_exact(other, eager)


# ----------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize("form", FORMS)
def test_a_validation_that_cant_be_a_program_runs_as_it_is(form, tmp_path, caplog):
    """Training stays fast. The validation data is drawn by weights, so another draw gives another loss."""

    def hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(output, goal)
        return loss if trainer.model.training else loss * max(1.0, output.abs().max().item())

    def trained(step: str) -> Any:
        torch._dynamo.reset()
        trainer = HookTrainer(tmp_path / step, hook=hook, step=step)
        trainer.val_loader = regression(29, 2, 8)
        trainer.val_loader._cumulative = torch.arange(1.0, 30.0, dtype=torch.float64)
        trainer.train()
        return trainer

    eager, other = trained("eager"), trained(form)
    (reason,) = warned(caplog, "validation goes on in eager form: ")
    assert reason.startswith("the loss function needs the value of a tensor while it runs")
    assert other.run_context.step.fast
    assert other.history["val_loss"] == pytest.approx(eager.history["val_loss"], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_validation_that_cant_be_compiled_runs_as_it_is(form, tmp_path, caplog, monkeypatch):
    """As where a trainer with a loop of its own validates and there is no compiler: nothing has fallen back before."""
    trainer = HookTrainer(tmp_path, step=form)

    def broken(*_: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(trainer.run_context.step.evaluation, "compile", lambda function: broken)
    assert trainer.validate() > 0
    assert warned(caplog, "validation goes on in eager form: ")


# ----------------------------------------------------------------------------------- compiled, but not what it was


def negated(program: Any, loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [-gradient for gradient in _GRADIENTS(program, loss, inputs)]


_GRADIENTS = program_module.LossProgram._gradients


@pytest.mark.parametrize("form", FORMS)
def test_wrong_gradients_are_caught_in_the_first_steps(form, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(program_module.LossProgram, "_gradients", negated)
    eager, other = both(tmp_path, form, dict)
    (reason,) = warned(caplog, f"step = {form} is not possible, going on with eager: ")
    assert reason == "the recorded gradient of a parameter (6, 4) differs from eager's"
    assert_exact(other, eager)


class Normed(nn.Module):
    """Batch normalization of inputs that are no small numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(30 * x))


@pytest.mark.parametrize("form", FORMS)
def test_wrong_gradients_are_caught_beside_running_statistics(form, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(program_module.LossProgram, "_gradients", negated)

    def parts() -> dict[str, Any]:
        torch.manual_seed(0)
        return {"model": Normed(), "optimizer": torch.optim.SGD}

    _eager, _other = both(tmp_path, form, parts)
    assert warned(caplog, f"step = {form} is not possible, going on with eager: ")


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_loss_is_caught_in_the_first_steps(form, tmp_path, caplog, monkeypatch):
    values = program_module.LossProgram._values
    monkeypatch.setattr(program_module.LossProgram, "_values", lambda *given: values(*given) * 1.001)
    eager, other = both(tmp_path, form, dict)
    (reason,) = warned(caplog, f"step = {form} is not possible, going on with eager: ")
    assert reason.startswith("the compiled step's loss is ")
    assert other.history["train_loss"] == eager.history["train_loss"]


@pytest.mark.parametrize("form", FORMS)
def test_a_program_that_is_right_at_first_and_wrong_in_the_third_step_is_caught(form, tmp_path, caplog, monkeypatch):
    eager = run(HookTrainer, tmp_path / "eager")
    other = HookTrainer(tmp_path / form, step=form)
    do_steps, done = type(other.run_context.step).do_steps, []

    def third_wrong(step: Any, step_input: Any) -> None:
        do_steps(step, step_input)
        done.append(step_input)
        if len(done) == 3:
            with torch.no_grad():
                next(iter(step.run.model.parameters())).add_(0.1)

    monkeypatch.setattr(type(other.run_context.step), "do_steps", third_wrong)
    torch._dynamo.reset()
    other.train()
    assert warned(caplog, f"step = {form} is not possible, going on with eager: the compiled step's update differs")
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=name)


# ----------------------------------------------------------------------------------------------- the command line


def test_without_a_compiler_a_run_goes_on_in_eager_form(shared_project, tmp_path):
    """In a new process that finds no compiler, and no programs of earlier runs."""
    empty = tmp_path / "empty"
    empty.mkdir()
    without = {"PATH": str(empty), "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = shared_project.run("FeatureFusion", "epochs=2", "step=compiled", **without)
    assert done.returncode == 0, done.stderr
    run_folder = shared_project.runs("FeatureFusion")[-1]
    log = (run_folder / "train.log").read_text()
    assert (
        "step = compiled is not possible, going on with eager: there is no C++ compiler here, which torch.compile "
        "needs on the CPU (Debian: apt install g++)"
    ) in log
    assert shared_project.run("FeatureFusion", "epochs=2", "step=eager").returncode == 0
    eager = shared_project.runs("FeatureFusion")[-1]
    assert eager != run_folder
    assert (eager / "model.safetensors").read_bytes() == (run_folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["build", "do_steps"])
@pytest.mark.parametrize("form", FORMS)
def test_a_signal_that_ends_the_compiler_too_does_not_end_the_form(tmp_path, caplog, monkeypatch, form, method):
    changes = dict(step=form, saving_share=1.0)
    whole = run(HookTrainer, tmp_path / "whole", **changes)
    part = HookTrainer(tmp_path / "part", **changes)
    kind = type(part.run_context.step)

    def killed(self: Any, *given: Any) -> None:  # Ctrl-C reaches the whole process group: the C++ compiler as well
        part.stop_request.number = 2
        raise RuntimeError("CppCompileError: interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, killed)
        with pytest.raises(KeyboardInterrupt):
            part.train()
    resumed = run(HookTrainer, tmp_path / "part", str(part.run_folder.path), **changes)
    assert fell_back(caplog) == [] and resumed.run_context.step.fast
    assert_exact(resumed, whole)
