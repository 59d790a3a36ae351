"""The forms of the optimizer step do what eager does: the same losses, weights, states and random numbers."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from train.loop.meters import EpochMeter

from step_trainers import (  # isort: skip
    DoubleTrainer,
    HookTrainer,
    NormTrainer,
    SpellingTrainer,
    copy_of,
    recorded_only,
    regression,
    run,
    run_epoch,
)

TRAINERS = {"norm": NormTrainer, "spelling": SpellingTrainer, "double": DoubleTrainer}
FORMS = ("epoch", "compiled")


class Runs:
    """One run of each trainer in each form, made when first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._done = factory, {}

    def __call__(self, name: str, form: str) -> Any:
        if (name, form) not in self._done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(TRAINERS[name], "copied_after", 2)
                folder = self._factory.mktemp(f"{name}_{form}", numbered=False)
                trainer = run(TRAINERS[name], folder, step=form, saving_share=1.0)
            trainer.validations = validations(trainer) if form != "eager" else None
            self._done[name, form] = trainer
        return self._done[name, form]


def validations(trainer: Any) -> list[dict[str, float]]:
    """Validate one and the same weights in eager form and in the trainer's."""
    found = []
    trainer.model.eval()
    step = trainer.run_context.step
    for evaluate in (step.eager.evaluate, step.evaluate):
        with trainer.run_context.measuring_with(EpochMeter()):
            evaluate(trainer.val_loader)
            found.append(trainer.run_context.meter.read())
    trainer.model.train()
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory)


# Another test has the steps of `spelling`, not compiled.
PAIRS = [("norm", "compiled"), ("double", "epoch")]
PAIRS += [
    pytest.param(pair, marks=pytest.mark.slow)
    for pair in (("norm", "epoch"), ("spelling", "epoch"), ("spelling", "compiled"))
]


@pytest.fixture(params=PAIRS, ids="-".join, scope="module")
def pair(request: pytest.FixtureRequest, runs: Runs) -> tuple[Any, Any]:
    """The same run in eager form and in another."""
    if torch.__version__ < "2.13":
        pytest.skip("older compilers fail at loops and at batch norm: the run falls back, as other tests show")
    name, form = request.param
    return runs(name, "eager"), runs(name, form)


# ------------------------------------------------------------------------------------------ whole runs, compiled


def test_the_fast_form_ran_to_the_end(pair):
    """All that follows would hold for a run that fell back."""
    eager, other = pair
    assert other.run_context.step.fast and other.run_context.step.evaluation.fast
    assert other.record.progress.step == eager.record.progress.step >= 200


def test_every_number_of_the_history_is_eagers(pair):
    """Losses, batch metrics of training and validation, learning rates; fp32 rounds in another order."""
    eager, other = pair
    assert set(eager.history) == set(other.history)
    tolerance = 1e-10 if isinstance(eager, DoubleTrainer) else 1e-5
    for name, values in eager.history.items():
        assert other.history[name] == pytest.approx(values, rel=tolerance), name
    if isinstance(eager, NormTrainer):
        assert {"train_top1", "train_size", "val_top1", "val_size"} < set(eager.history)


def test_every_parameter_buffer_and_moment_is_eagers(pair):
    eager, other = pair
    assert set(eager.last) == set(other.last)
    tolerance = 1e-12 if isinstance(eager, DoubleTrainer) else 1e-5
    for name, value in eager.last.items():
        torch.testing.assert_close(
            other.last[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_random_numbers_are_drawn_as_eager_draws_them(pair):
    """Masks of dropout come from torch's own stream, which ends where eager's does."""
    eager, other = pair
    assert torch.equal(eager.random, other.random)


def test_learning_rates_are_eagers_after_each_epoch(pair):
    eager, other = pair
    assert other.rates == [pytest.approx(rates, rel=1e-12) for rates in eager.rates]
    if isinstance(eager, NormTrainer):
        assert eager.rates[-1][0] < eager.rates[0][0], "the plateau scheduler lowered the rate"
    if isinstance(eager, SpellingTrainer):
        assert eager.rates[-1][0] < 1e-9 < eager.rates[5][0], "the schedule went down to zero by the step"


def test_validation_of_the_same_weights_is_eagers(pair):
    """With dropout and batch normalization, and a last batch that is short."""
    expected, found = pair[1].validations
    assert set(found) == set(expected) and "loss" in found
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_what_the_runs_of_this_module_are_meant_to_have_they_have(runs):
    """The features that the comparisons above are about were really at work."""
    norm, spelling, double = (runs(name, "eager") for name in TRAINERS)
    fresh = NormTrainer(norm.config.artifacts_dir / "fresh")
    assert torch.equal(norm.last["model.frozen.weight"], fresh.model.frozen.weight)
    assert not torch.equal(norm.last["model.head.weight"], fresh.model.head.weight)
    assert norm.last["model.norm.num_batches_tracked"] == norm.record.progress.step
    assert spelling.model.out.weight is spelling.model.embedding.weight
    assert spelling.record.progress.step == 12 * 18, "17 full step inputs of 53 batches, and one of 2"
    assert abs(double.last["loss_fn.log_noise"]) > 0.1
    assert double.last["model.0.weight"].dtype == torch.float64


# -------------------------------------------------------------------------- whole runs, without the compiler


CASES = {
    "adam": {},
    "adam, decay": {"optimizer": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=0.1, betas=(0.8, 0.95))},
    "adamw": {"optimizer": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1, eps=1e-6)},
    "adam, maximize": {"optimizer": lambda p, lr: torch.optim.Adam(p, lr=1e-4, maximize=True)},
    "sgd": {"optimizer": torch.optim.SGD},
    "sgd, momentum": {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.1)},
    "sgd, nesterov": {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True)},
    "no clipping": {"gradient_clip_value": 0.0},
    "clipping": {"optimizer": torch.optim.SGD, "gradient_clip_value": 0.05},
    "clipping at times": {"optimizer": torch.optim.SGD, "gradient_clip_value": 0.6},
    "accumulation": {"accumulation_steps": 5, "gradient_clip_value": 0.05},
    "one batch": {"batch_size": 93},
    "batch larger than the data": {"batch_size": 200},
    "moving average": {"ema_decay": 0.9},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_settings_are_eagers(case, form, tmp_path, monkeypatch):
    """What is recorded and the update's rule, operation by operation: only the compiler is left out.

    The rule is traced too, which is what may fail for one optimizer and not for another; the form without it is not.
    """
    with recorded_only(monkeypatch, traced=form == "epoch"):
        eager, other = (run(HookTrainer, tmp_path / step, step=step, **CASES[case]) for step in ("eager", form))
    assert other.run_context.step.fast
    assert other.history["train_loss"] == pytest.approx(eager.history["train_loss"], rel=1e-6)
    assert other.history["val_loss"] == pytest.approx(eager.history["val_loss"], rel=1e-6)
    assert torch.equal(eager.random, other.random)
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=f"{case}: {name}")


def test_steps_of_tied_weights_by_a_schedule_are_eagers(runs, tmp_path, monkeypatch):
    """With accumulation over windows of several lengths, and losses over counts that are tensors."""
    eager = runs("spelling", "eager")
    with recorded_only(monkeypatch, traced=True):
        other = run(SpellingTrainer, tmp_path, step="compiled")
        other.validations = validations(other)
    for check in (
        test_the_fast_form_ran_to_the_end,
        test_every_number_of_the_history_is_eagers,
        test_every_parameter_buffer_and_moment_is_eagers,
        test_random_numbers_are_drawn_as_eager_draws_them,
        test_learning_rates_are_eagers_after_each_epoch,
        test_validation_of_the_same_weights_is_eagers,
    ):
        check((eager, other))


@pytest.mark.parametrize("form", FORMS)
def test_an_lstm_goes_on_in_eager_form_on_the_cpu(form, tmp_path, monkeypatch, caplog):
    """oneDNN's recurrent layer keeps a workspace that a recording doesn't have."""
    with recorded_only(monkeypatch):
        eager, other = (
            run(SpellingTrainer, tmp_path / step, recurrent=True, step=step, epochs=2) for step in ("eager", form)
        )
    assert f"step = {form} is not possible, going on with eager: it can't be compiled: " in caplog.text
    for name, value in eager.last.items():
        assert torch.equal(value, other.last[name]), name


def test_an_lstm_is_exact_whatever_form_it_gets(tmp_path, monkeypatch):
    with recorded_only(monkeypatch):
        eager, other = (
            run(SpellingTrainer, tmp_path / step, recurrent=True, step=step, epochs=2) for step in ("eager", "epoch")
        )
    for name, value in eager.last.items():
        torch.testing.assert_close(other.last[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_float64_parameter_without_dimensions_is_refused(tmp_path, caplog):
    """Inductor loses `copy_` into a float64 input without dimensions."""
    trainer = run(DoubleTrainer, tmp_path, noise_shape=(), step="epoch", epochs=1)
    assert not trainer.run_context.step.fast
    assert "torch's compiler loses changes of a float64 number; give the parameter the shape (1,)" in caplog.text


class Counting(nn.Module):
    """A linear layer that counts its calls in buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("saved", torch.zeros(1))
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.saved.add_(1)
            self.unsaved.add_(1)
        return self.linear(x) + 0.01 * self.saved


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["saved", "unsaved"])
def test_buffers_that_the_hook_changes_count_each_step_once(form, name, tmp_path, monkeypatch):
    with recorded_only(monkeypatch):
        trainer = run(HookTrainer, tmp_path, model=Counting(), step=form)
    assert trainer.run_context.step.fast
    assert trainer.last[f"model.{name}"] == trainer.record.progress.step == 36


@pytest.mark.parametrize("form", FORMS)
def test_hooks_on_the_gradient_of_a_parameter_are_not_lost(form, tmp_path, monkeypatch):
    trainers = []
    with recorded_only(monkeypatch):
        for step in ("eager", form):
            model = nn.Linear(4, 2)
            nn.init.constant_(model.weight, 0.1)
            nn.init.zeros_(model.bias)
            model.weight.register_hook(lambda gradient: gradient * 1.05)
            trainers.append(run(HookTrainer, tmp_path / step, model=model, optimizer=torch.optim.SGD, step=step))
    eager, other = trainers
    torch.testing.assert_close(other.last["model.weight"], eager.last["model.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_many_runs_in_one_process_all_get_their_program(tmp_path, monkeypatch):
    with recorded_only(monkeypatch, traced=True):
        run(HookTrainer, tmp_path, epochs=1)  # resets dynamo; the ones below don't
        made = [HookTrainer(tmp_path / str(number), step="epoch", epochs=1) for number in range(10)]
        for trainer in made:
            trainer.train()
    assert [trainer.run_context.step.fast for trainer in made] == [True] * 10


# --------------------------------------------------------------------------------------------------------- resume


def resumed(make: Any, folder: Any, form: str) -> Any:
    """Interrupt a run after its second epoch and go on with it in a new trainer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "interrupt_after", 2)
        with pytest.raises(KeyboardInterrupt):
            run(make, folder, step=form, saving_share=1.0)
    return run(make, folder, resume="latest", step=form, saving_share=1.0)


def assert_same_bits(found: Any, expected: Any) -> None:
    assert dict(found.history) == dict(expected.history)
    assert torch.equal(found.random, expected.random)
    assert set(found.last) == set(expected.last)
    assert [name for name, value in expected.last.items() if not torch.equal(found.last[name], value)] == []


def test_a_resumed_run_in_epoch_form_gives_the_same_bits(runs):
    """The first steps after resuming are done one by one, and compared; they must not differ from those in one go.

    What is resumed is the whole run's folder as it was after two epochs: compiling for a run that is interrupted takes
    ten seconds, and gives the same.
    """
    if torch.__version__ < "2.13":
        pytest.skip("older compilers fail at loops: the run falls back")
    whole = runs("norm", "epoch")
    trainer = run(NormTrainer, copy_of(whole), resume="latest", step="epoch", saving_share=1.0)
    assert trainer.record.progress.step == whole.record.progress.step
    assert trainer.run_context.step.fast and len(trainer.rates) == 3, "what the trainer holds goes on too"
    assert_same_bits(trainer, whole)


@pytest.mark.parametrize("name", ["spelling", "double"])
@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_gives_the_same_bits(name, form, tmp_path, monkeypatch):
    """Where sums are split at other places, float64 losses and counts that are tensors would show it."""
    with recorded_only(monkeypatch):
        whole = run(TRAINERS[name], tmp_path / "whole", step=form)
        trainer = resumed(TRAINERS[name], tmp_path / "resumed", form)
    assert trainer.run_context.step.fast
    assert_same_bits(trainer, whole)


# ------------------------------------------------------------------------------------- nothing waits for the device


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: values that are read, and shapes that depend on values."""

    _WAIT = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(self._WAIT):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note every call of a tensor's methods that read its values."""
    seen: list[str] = []

    def watched(name: str) -> Any:
        original = getattr(torch.Tensor, name)
        return lambda tensor, *args: (seen.append(name), original(tensor, *args))[1]

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "numpy", "nonzero"):
            patch.setattr(torch.Tensor, name, watched(name))
        yield seen


def counted_hook(trainer: Any, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    trainer._collect_batch_metrics({"error": (output - goal).abs().mean()})
    return F.mse_loss(output, goal)


def long_trainer(folder: Any, **changes: Any) -> HookTrainer:
    """60 steps an epoch, accumulation and clipping on."""
    usual = {"batch_size": 2, "accumulation_steps": 2, "gradient_clip_value": 0.1, "epochs": 3}
    return HookTrainer(folder, hook=counted_hook, train_loader=regression(239, 1, 2), **{**usual, **changes})


@pytest.mark.parametrize("every", [10, 30, 1000])
def test_an_eager_epoch_reads_at_log_points_and_its_end_only(every, tmp_path):
    """A look reads the guard and a mean, which takes two numbers; the end of the epoch one mean for each metric too."""
    trainer = long_trainer(tmp_path, log_every_n_steps=every)
    trainer.run_context.guard.on_host = False  # as on a device: on the CPU the guard looks at its numbers at once
    run_epoch(trainer)
    with Reads() as reads:
        run_epoch(trainer)
    at_log_points, at_the_end = 60 // every, 1 + 2
    assert trainer.record.progress.step == 120
    seen = [name for name in reads.seen if name != "equal"]  # which compares random states: the host has them
    assert len(seen) <= at_the_end * 2 + 1 + (120 // every - 60 // every) * 3, seen
    assert at_log_points <= len(seen)


@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_steps_between_log_points_read_nothing(form, tmp_path, monkeypatch, reads):
    """From the second epoch on, whose first batch has been looked at."""
    with recorded_only(monkeypatch):
        torch._dynamo.reset()
        trainer = long_trainer(tmp_path, step=form)
        trainer.run_context.guard.on_host = False  # as on a device: on the CPU the guard looks at its numbers at once
        run_epoch(trainer)
        step_inputs = trainer.run_context.step.step_inputs(trainer.train_loader)
        trainer.run_context.step(next(step_inputs))
        reads.clear()
        for step_input in step_inputs:
            trainer.run_context.step(step_input)
        assert reads == []
        trainer.check_and_log()
        assert reads, "this is what a reading looks like"
    assert form == "eager" or trainer.run_context.step.fast


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_steps_on_cuda_never_wait(form, tmp_path):
    torch._dynamo.reset()
    trainer = long_trainer(tmp_path, step=form, device="cuda")
    run_epoch(trainer)
    step_inputs = trainer.run_context.step.step_inputs(trainer.train_loader)
    trainer.run_context.step(next(step_inputs))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step_input in step_inputs:
            trainer.run_context.step(step_input)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert form == "eager" or trainer.run_context.step.fast


@pytest.mark.gpu
def test_a_compiled_run_on_cuda_draws_eagers_masks(tmp_path):
    """Also in later epochs, at whose start the loss function is looked at."""
    eager, other = (run(HookTrainer, tmp_path / step, step=step, device="cuda") for step in ("eager", "compiled"))
    assert other.run_context.step.fast
    assert other.history["train_loss"] == pytest.approx(eager.history["train_loss"], rel=1e-4)
