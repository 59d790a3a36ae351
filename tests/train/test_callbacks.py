"""Callbacks: their moments, their errors, exact resume, those that come along, config.ini and the command line."""

import json
import math
import time
from typing import Any

import matplotlib.image
import pytest
import torch
from step_trainers import HookTrainer, NormTrainer, SpellingTrainer, numbers, run
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from commands.probe_steps import build_for_probing
from config import ConfigError
from train.base_trainer import BaseTrainer
from train.callbacks import (
    Callback,
    CallbackError,
    Callbacks,
    FreezeLayers,
    GradientNorm,
    LearningRateMonitor,
    PredictionPictures,
    StopAfterEpoch,
    StopAtTime,
    Throughput,
    callbacks_named,
)
from train.callbacks.callbacks import MOMENTS
from train.callbacks.prediction_pictures import classes_of
from train.errors import TrainerContractError, TrainingError

STEPS = 12  # of an epoch of HookTrainer: 93 samples in batches of 8


class Diary(Callback):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.seen = 0

    def on_train_begin(self, trainer):
        self.calls.append(("begin",))

    def on_epoch_begin(self, trainer, epoch):
        self.calls.append(("epoch begins", epoch))

    def on_step_end(self, trainer, steps):
        self.seen += steps
        gradients = [parameter.grad is not None for parameter in trainer.model.parameters()]
        self.calls.append(("step", trainer.record.progress.step, steps, all(gradients)))

    def on_log(self, trainer, numbers):
        self.calls.append(("log", trainer.record.progress.step, sorted(numbers)))
        numbers["seen"] = float(self.seen)

    def on_validation_end(self, trainer, numbers):
        self.calls.append(("validation", sorted(numbers)))
        numbers["val_seen"] = float(self.seen)

    def on_epoch_end(self, trainer, epoch, numbers):
        self.calls.append(("epoch", epoch, sorted(numbers)))

    def on_checkpoint(self, trainer, path):
        self.calls.append(("checkpoint", path.name, (path / "manifest.json").is_file()))

    def on_failure(self, trainer, error):
        self.calls.append(("failure", str(error)))

    def on_train_end(self, trainer, state):
        self.calls.append(("end", state))

    def state_dict(self):
        return {"seen": self.seen, "tensor": torch.tensor([self.seen])}

    def load_state_dict(self, state):
        assert torch.equal(state["tensor"], torch.tensor([state["seen"]]))
        self.seen = state["seen"]


def with_callbacks(*callbacks: Callback, interrupt_after: int | None = None, **options: Any) -> dict[str, Any]:
    attributes = {"callbacks": list(callbacks), "interrupt_after": interrupt_after}
    return {"attributes": attributes, "saving_share": 1.0, **options}


@pytest.fixture(autouse=True)
def options_as_before():
    before = BaseTrainer.options
    yield
    BaseTrainer.options = before


def metrics(trainer: Any) -> dict[str, Any]:
    return json.loads((trainer.run_folder.path / "metrics.json").read_text())


def test_the_moments_of_a_run_in_their_order(tmp_path):
    diary = Diary()
    trainer = run(HookTrainer, tmp_path, **with_callbacks(diary, epochs=2, log_every_n_steps=5))
    epoch = [
        *[[("step", step, 1, True)] + ([("log", step, ["learning_rate", "train_loss"])] if step in (5, 10, 12) else [])
          for step in range(1, STEPS + 1)],
    ]  # fmt: skip
    first = [call for calls in epoch for call in calls]
    numbers = ["learning_rate", "train_loss", "val_loss", "val_seen"]
    assert diary.calls[: len(first) + 2] == [("begin",), ("epoch begins", 1), *first]
    assert diary.calls[len(first) + 2 : len(first) + 6] == [
        ("validation", ["val_loss"]), ("epoch", 1, numbers), ("checkpoint", "epoch-00001", True),
        ("epoch begins", 2),
    ]  # fmt: skip
    assert diary.calls[-2:] == [("checkpoint", "epoch-00002", True), ("end", "finished")]
    assert trainer.history["val_seen"] == [12.0, 24.0]
    readings = metrics(trainer)["readings"]
    assert readings["step"] == [5, 10, 12, 17, 22, 24] and readings["seen"] == [5.0, 10.0, 12.0, 17.0, 22.0, 24.0]


def test_no_callback_changes_a_bit(tmp_path):
    plain = run(HookTrainer, tmp_path / "plain")
    watched = run(
        HookTrainer, tmp_path / "watched",
        **with_callbacks(Diary(), LearningRateMonitor(), GradientNorm(), Throughput(), PredictionPictures(4)),
    )  # fmt: skip
    assert all(torch.equal(plain.last[name], value) for name, value in watched.last.items())
    assert torch.equal(plain.random, watched.random)
    assert plain.history["val_loss"] == watched.history["val_loss"]


def test_a_resumed_run_goes_on_with_their_states_and_calls_nothing_again(tmp_path):
    whole, first, second = Diary(), Diary(), Diary()
    run(HookTrainer, tmp_path / "whole", **with_callbacks(whole, epochs=4))
    with pytest.raises(KeyboardInterrupt):
        run(HookTrainer, tmp_path / "part", **with_callbacks(first, interrupt_after=2, epochs=4))
    assert first.calls[-1] == ("end", "interrupted")
    resumed = run(HookTrainer, tmp_path / "part", "latest", **with_callbacks(second, epochs=4))
    assert second.seen == whole.seen == 4 * STEPS
    assert second.calls[0] == ("begin",)
    assert second.calls[1:] == whole.calls[whole.calls.index(("epoch begins", 3)) :]
    assert resumed.history["val_seen"] == [12.0, 24.0, 36.0, 48.0]


def test_a_checkpoint_that_is_written_as_the_run_is_interrupted_is_told_too(tmp_path):
    diary = Diary()
    options = with_callbacks(diary, interrupt_after=2, epochs=4) | {"saving_share": 1e-6}
    with pytest.raises(KeyboardInterrupt):
        run(HookTrainer, tmp_path, **options)
    assert diary.calls[-2:] == [("checkpoint", "epoch-00002", True), ("end", "interrupted")]


def test_a_state_without_its_callback_is_told_and_a_new_callback_begins_anew(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        run(HookTrainer, tmp_path, **with_callbacks(Diary(), Diary(), interrupt_after=1))
    diary = Diary()
    run(HookTrainer, tmp_path, "latest", **with_callbacks(diary, LearningRateMonitor()))
    assert "has a state of the callback Diary 2, which this run does not have" in caplog.text
    assert diary.seen == 3 * STEPS


class Breaking(Callback):
    """Fails at one moment."""

    def __init__(self, moment: str, error: BaseException) -> None:
        self.moment, self.error = moment, error


def _break(name: str) -> Any:
    def method(self, *args: Any) -> None:
        if self.moment == name:
            raise self.error

    return method


for _name in MOMENTS:
    setattr(Breaking, _name, _break(_name))


@pytest.mark.parametrize("moment", [name for name in MOMENTS if name not in ("on_failure", "on_train_end")])
def test_an_error_names_the_callback_and_the_moment_and_ends_the_run(tmp_path, moment):
    diary = Diary()
    trainer = HookTrainer(tmp_path, **with_callbacks(Breaking(moment, ValueError("what a mess")), diary))
    with pytest.raises(CallbackError) as error:
        trainer.train()
    text = str(error.value)
    assert text.startswith(f"callback Breaking failed in {moment}: ") and text.endswith("ValueError: what a mess")
    assert "test_callbacks.py:" in text
    assert isinstance(error.value, TrainingError) and isinstance(error.value.__cause__, ValueError)
    assert metrics(trainer)["state"] == "failed" and text in metrics(trainer)["error"]
    assert diary.calls[-2:] == [("failure", text), ("end", "failed")]


def test_what_fails_in_a_run_that_has_failed_hides_nothing(tmp_path, caplog):
    def hook(trainer, output, goal):
        if trainer.run_context.in_session:
            raise RuntimeError("the first error")
        return (output - goal).square().mean()

    trainer = HookTrainer(tmp_path, hook=hook, **with_callbacks(Breaking("on_failure", ValueError("the second"))))
    with pytest.raises(RuntimeError, match="the first error"):
        trainer.train()
    assert "callback Breaking failed in on_failure" in caplog.text


def test_what_fails_at_the_end_of_a_good_run_is_an_error(tmp_path):
    before, after = Diary(), Diary()
    trainer = HookTrainer(tmp_path, **with_callbacks(before, Breaking("on_train_end", ValueError("at last")), after))
    with pytest.raises(CallbackError, match="failed in on_train_end"):
        trainer.train()
    for diary in (before, after):  # each has its turn, once
        assert [call for call in diary.calls if call[0] == "end"] == [("end", "finished")]
    assert metrics(trainer)["state"] == "failed"


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (Diary, "self.callbacks holds the class Diary; give an object: Diary()."),
        ("diary", "self.callbacks holds 'diary'; a callback derives from train.callbacks.Callback."),
        (type("Late", (Callback,), {"on_epoch_ends": print})(),
         "Late.on_epoch_ends would never be called; did you mean on_epoch_end?"),
        (type("Later", (type("Late", (Callback,), {"on_batch_end": print}),), {})(),
         "Later.on_batch_end would never be called; did you mean on_step_end?"),
        (type("Bare", (Callback,), {"epoch_end": print})(),
         "Bare.epoch_end would never be called; did you mean on_epoch_end?"),
    ],
)  # fmt: skip
def test_what_is_no_callback_is_told_before_training(tmp_path, callback, told):
    with pytest.raises(TrainerContractError) as error:
        HookTrainer(tmp_path, **with_callbacks(callback))
    assert str(error.value) == told


@pytest.mark.parametrize("given", [Diary(), None, "Diary"])
def test_callbacks_must_be_a_list(tmp_path, given):
    with pytest.raises(TrainerContractError, match="self.callbacks must be a list of callbacks; it is"):
        HookTrainer(tmp_path, attributes={"callbacks": given})
    trainer = HookTrainer(tmp_path)
    trainer.callbacks = given
    with pytest.raises(TrainerContractError, match="self.callbacks must be a list of callbacks; it is"):
        trainer.train()


@pytest.mark.parametrize("moment", ["on_log", "on_validation_end"])
@pytest.mark.parametrize(("given", "kept"), [(torch.tensor(2.5), 2.5), (3, 3.0), ("2.5", None), (None, None)])
def test_what_is_added_must_be_a_number(tmp_path, moment, given, kept):
    def add(self, trainer, numbers):
        numbers["val_extra"] = given

    trainer = HookTrainer(tmp_path, **with_callbacks(type("Adds", (Callback,), {moment: add})()))
    if kept is None:
        with pytest.raises(CallbackError, match=rf"callback Adds failed in {moment}: .*'val_extra'.* must be a number"):
            trainer.train()
        return
    trainer.train()
    history = metrics(trainer)["readings" if moment == "on_log" else "history"]
    assert set(history["val_extra"]) == {kept}


def test_a_state_that_a_callback_refuses_is_told_as_its_own(tmp_path):
    def refuse(self, state):
        raise KeyError("nothing for me")

    with pytest.raises(KeyboardInterrupt):
        run(HookTrainer, tmp_path, **with_callbacks(Diary(), interrupt_after=1))
    with pytest.raises(CallbackError, match="callback Diary failed in load_state_dict: .*KeyError"):
        run(HookTrainer, tmp_path, "latest", **with_callbacks(type("Diary", (Diary,), {"load_state_dict": refuse})()))


def test_callbacks_of_a_kind_have_numbers_and_a_moment_that_nobody_wants_costs_nothing():
    one, other = LearningRateMonitor(), LearningRateMonitor()
    callbacks = Callbacks([one, Diary(), other])
    assert callbacks.state_dict().keys() == {"Diary"}
    assert not Callbacks([one]).step_end and not Callbacks([one]).epoch_end and Callbacks([one]).log == [one]


def test_callbacks_may_come_after_the_base_class(tmp_path):
    trainer, diary = HookTrainer(tmp_path), Diary()
    trainer.callbacks.append(diary)
    trainer.train()
    assert diary.calls[0] == ("begin",) and diary.calls[-1] == ("end", "finished")


def test_checks_do_not_call_them_and_put_their_states_back(tmp_path):
    from commands.check.run import run_checks
    from commands.check.subject import Subject

    diary = Diary()
    make = lambda: HookTrainer(tmp_path, **with_callbacks(diary))  # noqa: E731
    probed = build_for_probing(make)
    verdicts = run_checks(Subject(probed, make))
    assert not diary.calls and not any(verdict.mark == "FAILED" for verdict in verdicts)


# ------------------------------------------------------------------------------------------------ forms of the step


def test_a_callback_of_steps_takes_the_eager_form_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = run(HookTrainer, tmp_path / "auto", **with_callbacks(Diary(), step="auto"))
    assert trainer.run_context.step.name == "eager"
    assert "step = eager (auto): callback Diary must see each step" in caplog.text
    trainer = run(HookTrainer, tmp_path / "asked", **with_callbacks(Diary(), step="compiled"))
    assert trainer.run_context.step.name == "eager"
    assert "step = compiled is not used: callback Diary must see each step, so it is eager" in caplog.text


def test_a_callback_that_may_miss_steps_leaves_the_form_alone(tmp_path, monkeypatch):
    from step_trainers import recorded_only

    class Rare(Diary):
        every_step = False

        def on_step_end(self, trainer, steps):
            self.seen += steps

    rare = Rare()
    with recorded_only(monkeypatch):
        trainer = run(HookTrainer, tmp_path, **with_callbacks(rare, step="epoch"))
    assert trainer.run_context.step.name == "epoch" and rare.seen == 3 * STEPS


# --------------------------------------------------------------------------------------------- those that come along


def test_learning_rates_of_all_groups(tmp_path):
    def two_groups(parameters, lr):
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first]}, {"params": rest, "lr": 10 * lr}], lr=lr)

    trainer = run(
        HookTrainer, tmp_path, optimizer=two_groups, scheduler=lambda made: StepLR(made, 1, 0.5),
        **with_callbacks(LearningRateMonitor(), epochs=2, log_every_n_steps=6),
    )  # fmt: skip
    readings = metrics(trainer)["readings"]
    assert readings["learning_rate"] == pytest.approx([0.01, 0.01, 0.005, 0.005])
    assert readings["learning_rate_2"] == pytest.approx([0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("make", [HookTrainer, SpellingTrainer, NormTrainer])
def test_gradient_norms_are_those_of_autograd(tmp_path, make, clip):
    """Against gradients that are computed here, of the same step, before it clips; accumulated ones too."""
    norms: list[float] = []

    class Checking(Callback):
        def on_train_begin(self, trainer):
            step = trainer.run_context.step
            update = step.update

            def noting(divisor=None):
                by = 1.0 if divisor is None else float(divisor)
                parts = [p.grad.double().norm() / by for p in update.parameters if p.grad is not None]
                norms.append(float(torch.stack(parts).norm()))
                update_before(divisor)

            update_before, step.update = update, _Calls(update, noting)

    trainer = make(tmp_path, epochs=2, gradient_clip_value=clip, log_every_n_steps=1)
    trainer.callbacks += [GradientNorm(), Checking()]
    trainer.train()
    read = metrics(trainer)["readings"]["gradient_norm"]
    assert len(read) == len(norms) and read == pytest.approx(norms, rel=1e-5)
    assert not clip or max(norms) > clip, "it is the norm before it is clipped"


class _Calls:
    """An update whose calls somebody else takes."""

    def __init__(self, update: Any, call: Any) -> None:
        self.__dict__["_update"], self.__dict__["_call"] = update, call

    def __call__(self, divisor: Any = None) -> None:
        self._call(divisor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._update, name)


def test_throughput_counts_steps_by_the_clock(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("train.callbacks.throughput.time.perf_counter", lambda: clock[0])

    class Clock(Callback):
        def on_step_end(self, trainer, steps):
            clock[0] += 0.25

        def on_validation_end(self, trainer, numbers):
            clock[0] += 1000.0

    trainer = run(HookTrainer, tmp_path, **with_callbacks(Clock(), Throughput(), epochs=2, log_every_n_steps=6))
    readings = metrics(trainer)["readings"]
    assert readings["steps_per_second"] == pytest.approx([4.0] * 4), "a validation is no training"
    assert readings["samples_per_second"] == pytest.approx([32.0] * 4)
    assert all(memory > 10 for memory in readings["peak_memory_mb"])


def test_layers_are_frozen_for_some_epochs_and_then_trained(tmp_path):
    class Weights(Callback):
        def __init__(self):
            self.first = []

        def on_epoch_end(self, trainer, epoch, numbers):
            self.first.append(trainer.model[0].weight.detach().clone())

    weights = Weights()
    make = with_callbacks(FreezeLayers("0", epochs=2), weights, epochs=4, weight_decay=0.1, optimizer=torch.optim.AdamW)
    trainer = HookTrainer(tmp_path, **make)
    before = trainer.model[0].weight.detach().clone()
    trainer.train()
    assert torch.equal(weights.first[0], before) and torch.equal(weights.first[1], before)
    assert not torch.equal(weights.first[2], before) and not torch.equal(weights.first[3], weights.first[2])


def test_what_an_author_has_frozen_stays_frozen(tmp_path):
    trainer = HookTrainer(tmp_path, **with_callbacks(FreezeLayers("0", epochs=1)))
    trainer.model[0].bias.requires_grad_(False)
    before = trainer.model[0].bias.clone()
    trainer.train()
    assert not trainer.model[0].bias.requires_grad and trainer.model[0].weight.requires_grad
    assert torch.equal(trainer.model[0].bias, before)


def test_freezing_resumes_to_the_same_bits(tmp_path):
    def frozen(**more: Any) -> dict[str, Any]:
        return with_callbacks(FreezeLayers(["0"], epochs=2), epochs=4, **more)

    whole = run(HookTrainer, tmp_path / "whole", **frozen())
    with pytest.raises(KeyboardInterrupt):
        run(HookTrainer, tmp_path / "part", **frozen(interrupt_after=1))
    resumed = run(HookTrainer, tmp_path / "part", "latest", **frozen())
    assert all(torch.equal(whole.last[name], value) for name, value in resumed.last.items())


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("encoder", "the model has no layer 'encoder' with parameters; those with some are"),
        (["0", "3"], "nothing of the model is left"),
    ],
)
def test_layers_that_are_not_there_or_are_all_are_told(tmp_path, layers, told):
    trainer = HookTrainer(tmp_path, **with_callbacks(FreezeLayers(layers, epochs=1)))
    with pytest.raises(ConfigError, match=told):
        trainer.train()


def test_predictions_are_drawn_after_each_validation(tmp_path):
    trainer = run(HookTrainer, tmp_path, **with_callbacks(PredictionPictures(samples=3)))
    names = sorted(path.name for path in (trainer.run_folder.path / "predictions").iterdir())
    assert names == ["epoch-00001.png", "epoch-00002.png", "epoch-00003.png"]
    picture = (trainer.run_folder.path / "plots" / "predictions.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
    assert not trainer.model._forward_hooks, "the model is as it was"


def test_classes_of_samples_are_those_of_the_dataset():
    rows, classes = torch.randn(9, 4), torch.arange(9) % 3
    pairs = DataLoader(TensorDataset(rows, classes), 4)
    assert classes_of(pairs, rows[:4]) == [0, 1, 2, 0]
    assert classes_of(pairs, rows[:4] + 1) is None, "what the model was given is something else"
    assert classes_of(DataLoader(TensorDataset(rows, rows), 4), rows[:4]) is None, "targets that are no classes"
    assert classes_of(DataLoader(TensorDataset(rows), 4), rows[:4]) is None


def test_a_reconstruction_is_drawn_by_its_input_s_black_and_white(tmp_path):
    from evaluation.plots.prediction_pictures import draw_predictions

    images = numbers(4, 8, 8)
    draw_predictions(images, images, None, "same", [tmp_path / "same.png"])
    draw_predictions(images, 0.01 * images + 3, None, "same", [tmp_path / "flat.png"])
    same, flat = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("same", "flat"))
    assert (abs(same - flat) > 0.1).mean() > 0.1


@pytest.mark.parametrize("shape", [(6, 1, 8, 8), (6, 3, 8, 8), (6, 8, 8), (6, 20)])
def test_every_kind_of_sample_is_drawn(tmp_path, shape):
    from evaluation.plots.prediction_pictures import draw_predictions

    inputs, scores = torch.randn(shape), torch.randn(6, 5)
    for name, outputs, classes in (
        ("scores", scores, [0] * 6),
        ("same", inputs, None),
        ("numbers", scores[:, :1], None),
    ):
        draw_predictions(inputs, outputs, classes, name, [tmp_path / f"{name}.png"])
        assert (tmp_path / f"{name}.png").stat().st_size > 2_000


def test_a_time_limit_saves_and_can_be_resumed(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("train.callbacks.stop_at_time.time.time", lambda: now[0])

    class Clock(Callback):
        def on_step_end(self, trainer, steps):
            now[0] += 1.0

    trainer = HookTrainer(tmp_path, **with_callbacks(StopAtTime(hours=15 / 3600), Clock()))
    with pytest.raises(KeyboardInterrupt, match="StopAtTime: 15 s are over") as stopped:
        trainer.train()
    assert stopped.value.number == 15  # SIGTERM's, so that the exit code is 143
    assert metrics(trainer)["state"] == "interrupted" and trainer.record.progress.step == 16
    whole = run(HookTrainer, tmp_path / "whole")
    resumed = run(HookTrainer, tmp_path, "latest", **with_callbacks())
    assert all(torch.equal(whole.last[name], value) for name, value in resumed.last.items())


def test_a_run_stops_after_an_epoch_and_goes_on_to_the_same_bits(tmp_path):
    whole = run(HookTrainer, tmp_path / "whole")
    for resume in (None, "latest"):  # the second time it has come as far, and ends after a step
        with pytest.raises(KeyboardInterrupt, match="StopAfterEpoch: 2 of 3 epochs are done"):
            run(HookTrainer, tmp_path, resume, **with_callbacks(StopAfterEpoch(2)))
    resumed = run(HookTrainer, tmp_path, "latest", **with_callbacks())
    assert all(torch.equal(whole.last[name], value) for name, value in resumed.last.items())
    run(HookTrainer, tmp_path / "short", **with_callbacks(StopAfterEpoch(3)))  # of three epochs: nothing to stop
    for epochs in (0, 1.5):
        with pytest.raises(ConfigError, match="must be a whole number above 0"):
            StopAfterEpoch(epochs)


def test_time_limits_that_mean_nothing_are_told(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    with pytest.raises(ConfigError, match=r"give hours=... or at=...; without them it needs SLURM_JOB_END_TIME"):
        StopAtTime()
    with pytest.raises(ConfigError, match="hours = 0 must be above 0"):
        StopAtTime(hours=0)
    with pytest.raises(ConfigError, match=r"at = 'noon' must be a time such as 2026-12-24T18:00"):
        StopAtTime(at="noon")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    StopAtTime()


# ------------------------------------------------------------------------------------- config.ini, the command line


def test_callbacks_are_named_in_text():
    assert callbacks_named("") == [] and callbacks_named("  ") == []
    made = callbacks_named(
        "train.callbacks:Throughput, train.callbacks:FreezeLayers(['0', 'a,b'], epochs=2),"
        'train.callbacks.prediction_pictures:PredictionPictures(samples=2, shape=(8, 8))'
    )  # fmt: skip
    assert [type(callback).__name__ for callback in made] == ["Throughput", "FreezeLayers", "PredictionPictures"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Throughput", "'Throughput' must be package.module:Class"),
        ("train.callbacks:Throughput,", "'' must be package.module:Class"),
        ("nowhere.to_be:Found", "nowhere.to_be:Found can't be imported: No module named 'nowhere'"),
        ("train.callbacks:Nothing", "module train.callbacks has no Nothing"),
        ("train.callbacks:Callbacks", "train.callbacks:Callbacks is no callback: it must derive from"),
        ("train.callbacks:FreezeLayers(layers)", "must be plain values"),
        ("train.callbacks:FreezeLayers", "can't be made: TypeError"),
        ("train.callbacks:Throughput()()", "it is no list of arguments"),
        ("train.callbacks:PredictionPictures(samples=0)", "must be 1 or more; they are 0 and 1"),
        ("train.callbacks:PredictionPictures(shape=8)", "shape = 8 must be as (height, width)"),
        ("train.callbacks:FreezeLayers('a', epochs=1.5)", "a whole number of 1 or more (it is 1.5)"),
        ("train.callbacks:FreezeLayers('a', epochs=0)", "a whole number of 1 or more (it is 0)"),
    ],
)
def test_names_that_are_wrong_are_told(text, told):
    with pytest.raises(ConfigError) as error:
        callbacks_named(text)
    assert told in str(error.value)


def test_the_command_line_and_config_ini_take_callbacks(project):
    (project.path / "my_callbacks.py").write_text(
        "from train.callbacks import Callback\n\n\nclass Broken(Callback):\n"
        "    def on_epoch_end(self, trainer, epoch, numbers):\n        if epoch == 2:\n            print(1 / 0)\n"
    )
    done = project.run("Resumable", "callbacks=train.callbacks:LearningRateMonitor", "log_every_n_steps=5")
    assert done.returncode == 0, done.stderr
    (run_path,) = project.runs("Resumable")
    readings = json.loads((run_path / "metrics.json").read_text())["readings"]
    assert len(readings["learning_rate"]) == len(readings["step"]) and readings["learning_rate"][0] == 0.01
    assert (run_path / "config.ini").read_text().count("callbacks = train.callbacks:LearningRateMonitor") == 1
    done = project.run("Resumable", "callbacks=my_callbacks:Broken")
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert "callback Broken failed in on_epoch_end: my_callbacks.py:7 in on_epoch_end: ZeroDivisionError" in done.stderr
    done = project.run("Resumable", "callbacks=my_callbacks:Missing")
    assert done.returncode == 2 and "module my_callbacks has no Missing" in done.stderr
    done = project.run("Resumable", "callbacks=train.callbacks:StopAtTime(hours=1e-9)", "epochs=50")
    assert done.returncode == 143 and "interrupted by StopAtTime: " in done.stderr and "; go on with: " in done.stderr


def test_seeds_with_a_callback_are_trained_one_after_the_other(tmp_path):
    from commands.seeds.choice import why_sequential

    trainer = HookTrainer(tmp_path, **with_callbacks(Diary()))
    assert why_sequential(trainer.run_context, seeds=8) == "the callback Diary may do anything at any step"


def test_a_loss_that_jumps_is_remembered_over_a_resume():
    from train.callbacks.loss_spikes import LossSpikes

    spikes = LossSpikes(3.0, lambda: 0.0)
    for step in range(1, 8):
        spikes.compare(1.0, 8.0 * step, step)
    other = LossSpikes(3.0, lambda: 0.0)
    other.load_state_dict(json.loads(json.dumps(spikes.state_dict())))
    assert other.state_dict() == spikes.state_dict() and not math.isnan(other.state_dict()["total"])


def test_a_module_of_ones_own_is_found_beside_the_program(project):
    """`python train.py` has its own folder on the path, so a file beside it is enough."""
    assert not (project.path / "my_callbacks.py").exists()
    done = project.run("Resumable", "callbacks=my_callbacks:Any")
    assert done.returncode == 2 and "my_callbacks:Any can't be imported: No module named 'my_callbacks'" in done.stderr
    for source, told in (
        ("class Any(\n", "my_callbacks:Any can't be imported: '(' was never closed (my_callbacks.py, line 1)"),
        ("import json\njson.nothing\n", "can't be imported: my_callbacks.py:2 in <module>: AttributeError: module"),
    ):
        (project.path / "my_callbacks.py").write_text(source)
        done = project.run("Resumable", "callbacks=my_callbacks:Any")
        assert done.returncode == 2 and told in done.stderr, done.stderr
