"""`--check`: each line of the checklist, for sound trainers and for such as break it."""

import itertools
import json
import math
import random
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from step_trainers import DoubleTrainer, HookTrainer, Kit, NormTrainer, SpellingTrainer, numbers
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from commands.check import control, data, files, learning, machine
from commands.check import run as check_run
from commands.check.checklist import CHECKLIST
from commands.check.files import differences
from commands.check.report import FAILED, OK, SKIPPED, WARNING, failed, line, listed, ok, summary, warning
from commands.check.run import run_checks
from commands.check.subject import Subject
from commands.probe_steps import build_for_probing, quiet_log
from train.base_trainer import BaseTrainer

NAMES = [name for name, _ in CHECKLIST]


@pytest.fixture(autouse=True)
def options_as_before():
    before = BaseTrainer.options
    yield
    BaseTrainer.options = before


@pytest.fixture
def subject_of(tmp_path):
    """Build a trainer of the tests and make it a subject."""

    def made(trainer_class=HookTrainer, **options) -> Subject:
        make = partial(trainer_class, tmp_path, **options)
        with quiet_log():
            return Subject(build_for_probing(make), make)

    return made


def variant(name: str = "Variant", **body) -> type:
    """A HookTrainer with other methods; a trainer may not derive from one."""
    forward = HookTrainer._forward_batch.__wrapped__
    usual = {"__init__": HookTrainer.__init__, "_forward_batch": forward, "usual": HookTrainer.usual}
    return type(BaseTrainer)(name, (Kit, BaseTrainer), {**usual, **body})


def verdicts_of(text: str) -> dict[str, tuple[str, str]]:
    """Read lines back: mark and text by name."""
    found, name = {}, ""
    for row in text.splitlines():
        match = re.match(r"(ok|warning|FAILED|skipped) +(.{32})  (.*)", row)
        if match and match[2].strip() in NAMES:
            name = match[2].strip()
            found[name] = (match[1], match[3])
        elif row.startswith(" " * 43) and name:
            found[name] = (found[name][0], f"{found[name][1]}\n{row.strip()}")
    return found


# --------------------------------------------------------------------------------------------- through the command line


@pytest.fixture(scope="module")
def sound(shared_project):
    return shared_project.run("FeatureFusion", "--check", "lr_patience=2")


def test_a_sound_trainer_passes_every_line(sound):
    assert sound.returncode == 0, sound.stdout + sound.stderr
    found = verdicts_of(sound.stdout)
    assert list(found) == NAMES
    assert {mark for mark, _ in found.values()} == {OK}
    # Where importing torch takes seconds, a line of the log says so first.
    told = [line for line in sound.stdout.splitlines() if " INFO importing torch and " not in line]
    assert told[0].startswith("FeatureFusionTrainer on cpu; FeatureFusionModel: 280 parameters")
    assert re.fullmatch(r"15 ok, 0 warnings, 0 failed, 0 skipped in .*s", sound.stdout.splitlines()[-1])
    assert sound.stderr == ""
    assert found["samples fit the model"][1] == (
        "training: (16,) float32; batches of 32\nvalidation: (16,) float32; batches of 30"
    )
    assert found["loaders share no samples"][1] == "30 validation samples against 100 of training: no exact duplicate"
    assert found["scheduler"][1] == (
        "ReduceLROnPlateau steps on the validation loss; rate 0.01 to 0.005 after 3 bad ones"
    )
    assert found["early stopping"][1] == "stops after 10 validations without improvement, not before"
    assert "for 4 epochs of 4 steps" in found["time and memory"][1]


def test_it_leaves_nothing_behind(sound, shared_project):
    assert not (shared_project.path / "artifacts").exists()


def test_faults_that_a_run_would_not_tell_are_told_all_at_once(shared_project):
    faults = "leak, cut, train_loss, never_stops, hidden_state"
    done = shared_project.run("Careless", "--check", f"faults={faults}")
    assert done.returncode == 4, done.stdout + done.stderr
    found = verdicts_of(done.stdout)
    assert [name for name, (mark, _) in found.items() if mark == FAILED] == [
        "loaders share no samples", "every parameter gets a gradient", "checkpoint round trip", "scheduler",
        "early stopping",
    ]  # fmt: skip
    assert found["loaders share no samples"][1] == (
        "20 are exact duplicates (50 validation samples against 60 of training), such as number 0"
    )
    assert found["every parameter gets a gradient"][1].startswith("none in 4 steps: encoder.weight, encoder.bias\n")
    assert "but the next step differs: " in found["checkpoint round trip"][1]
    assert "the trainer has a state that is not saved" in found["checkpoint round trip"][1]
    assert re.match(
        r"ReduceLROnPlateau was stepped on [\d.]+, a training loss; the validation loss is [\d.]+$",
        found["scheduler"][1],
    )
    assert found["early stopping"][1] == (
        "early_stopping_patience = 10, but the run does not stop after 11 validations without improvement"
    )
    assert done.stdout.splitlines()[-1].endswith(": mend what failed before a long run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "name", "text"),
    [
        ("none", "", ""),
        (
            "forgotten",
            "optimizer has all parameters",
            "1 of 5 are not in it and would never change: loss_fn.log_weight",
        ),
        ("climb", "loss falls", "the steps don't follow the loss"),
        ("no_metrics", "metrics.json", "a short run left none: train() must call save_metrics()"),
    ],
)
def test_each_other_fault_of_the_careless_trainer(shared_project, faults, name, text):
    done = shared_project.run("Careless", "--check", f"faults={faults}")
    found = verdicts_of(done.stdout)
    assert [line for line, (mark, _) in found.items() if mark == FAILED][:1] == ([name] if name else [])
    assert done.returncode == (4 if name else 0)
    assert not name or text in found[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["OwnLoop"], ["Resumable", "loader=made", "num_workers=2"], ["ModelAutoEncoder"]])
def test_other_sound_trainers_have_no_failed_line(shared_project, words):
    done = shared_project.run(*words, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------------------- what can't be built, or fails


def test_a_sample_that_does_not_fit_is_a_failed_line_and_the_rest_is_skipped(tmp_path, capsys):
    def build(self) -> None:
        HookTrainer.__init__(self, tmp_path, train_loader=DataLoader(TensorDataset(numbers(8, 9)), 4))

    def forward(self, batch):
        return self.model(batch["x"] if isinstance(batch, dict) else batch[0]).mean()

    assert check_run.command(variant("Wide", __init__=build, _forward_batch=forward), True) == 3
    found = verdicts_of(capsys.readouterr().out)
    mark, text = found.pop("samples fit the model")
    assert mark == FAILED
    assert text.startswith(
        "Wide._forward_batch fails with the first batch of train_loader.\nbatch: list of 1: tensor (4, 9) float32"
    )
    assert "train/machine.py" not in text  # through which the samples are tried: the error is not there
    assert set(found.values()) == {(SKIPPED, "needs a trainer that is built")}


def test_a_loss_that_is_no_scalar_is_the_line_of_the_loss(tmp_path, capsys):
    def build(self) -> None:
        HookTrainer.__init__(self, tmp_path, hook=lambda trainer, output, goal: (output - goal).square().mean(1))

    assert check_run.command(variant("Vector", __init__=build), True) == 2
    mark, text = verdicts_of(capsys.readouterr().out)["loss is a finite scalar"]
    assert (mark, text) == (
        FAILED, "Vector._forward_batch returned a tensor (8,) float32; the loss must be a scalar: take its .mean()."
    )  # fmt: skip


def test_an_error_of_the_trainer_is_told_once_with_its_place_and_the_others_go_on(subject_of):
    calls = itertools.count()

    def hook(trainer, output, goal):
        if trainer.model.training and next(calls):  # the first is the one that lets the trainer be built
            raise KeyError("no such column")
        return F.mse_loss(output, goal)

    verdicts = dict(zip(NAMES, run_checks(subject_of(hook=hook)), strict=True))
    assert verdicts["samples fit the model"].mark == FAILED
    assert "KeyError: 'no such column'" in verdicts["samples fit the model"].text
    assert "A batch has the keys" not in verdicts["samples fit the model"].text, "it is no key of the batch's"
    assert verdicts["loss falls"] == (learning.Verdict(SKIPPED, "the error of 'samples fit the model' again"))
    for name in ("loaders share no samples", "optimizer has all parameters", "disk space"):
        assert verdicts[name].mark == OK, name


@pytest.mark.parametrize(
    ("trainer_class", "options", "expected"),
    [
        (HookTrainer, {}, {}),
        (NormTrainer, {"epochs": 40}, {}),  # dropout, batch norm, frozen layers, class weights
        # Accumulation; a world of few words.
        pytest.param(SpellingTrainer, {"epochs": 3}, {"loaders share no samples": WARNING}, marks=pytest.mark.slow),
        pytest.param(DoubleTrainer, {}, {}, marks=pytest.mark.slow),
    ],
)
def test_sound_trainers_of_many_features(subject_of, trainer_class, options, expected):
    subject = subject_of(trainer_class, **options)
    verdicts = dict(zip(NAMES, run_checks(subject), strict=True))
    assert {name: v.mark for name, v in verdicts.items() if v.mark in (FAILED, SKIPPED)} == {}, verdicts
    for name, mark in expected.items():
        assert verdicts[name].mark == mark


# ------------------------------------------------------------------------------------------------------------- the data


def test_nan_in_the_data_fails_where_the_loss_is_nan_too_and_warns_where_not(subject_of):
    x = numbers(40, 4)
    x[3, 2] = math.nan
    loader = DataLoader([{"x": row, "y": row[:2].nan_to_num()} for row in x], 8)
    wrong = data.data_are_sane(subject_of(train_loader=loader))
    assert (wrong.mark, wrong.text) == (FAILED, "1 of 128 values of training x are NaN or infinite")

    class Masking(nn.Linear):
        def forward(self, x):
            return super().forward(x.nan_to_num())

    meant = data.data_are_sane(subject_of(train_loader=loader, model=Masking(4, 2)))
    assert meant.mark == WARNING and meant.text.endswith("; the loss is finite, so the model may expect them")


def test_constant_data_are_a_warning(subject_of):
    loader = DataLoader([{"x": torch.full((4,), 0.5), "y": numbers(2, seed=i)} for i in range(16)], 8)
    verdict = data.data_are_sane(subject_of(train_loader=loader))
    assert (verdict.mark, verdict.text) == (WARNING, "all values of training x are 0.5")


def split(train: list[int], val: list[int], count: int = 60):
    rows = [{"x": row, "y": row[:2]} for row in numbers(count, 4)]
    return DataLoader(Subset(rows, train), 8, shuffle=True), DataLoader(Subset(rows, val), 8)


@pytest.mark.parametrize(
    ("train", "val", "mark", "text"),
    [
        (range(50), range(50, 60), OK, "10 validation samples against 50 of training: no exact duplicate"),
        (range(50), range(48, 60), FAILED, "2 samples are in both: indices 48, 49 of the same dataset"),
    ],
)
def test_indices_of_one_dataset_are_compared(subject_of, train, val, mark, text):
    subject = subject_of()
    subject.run.trainer.train_loader, subject.run.trainer.val_loader = split(list(train), list(val))
    verdict = data.no_shared_samples(subject)
    assert (verdict.mark, verdict.text) == (mark, text)


def test_no_duplicates_are_claimed_where_no_samples_can_be_told_apart(subject_of, monkeypatch):
    monkeypatch.setattr(data, "_digests", lambda *_: ({}, None))
    assert data.no_shared_samples(subject_of()).mark == SKIPPED


def test_few_duplicates_are_a_warning_many_a_failure(subject_of):
    def apart(shared: int):
        rows = numbers(400, 4)
        subject = subject_of()
        subject.run.trainer.train_loader = DataLoader(TensorDataset(rows[:200]), 8)
        subject.run.trainer.val_loader = DataLoader(TensorDataset(rows[200 - shared : 400 - shared]), 8)
        return data.no_shared_samples(subject)

    assert apart(0).mark == OK
    assert apart(2).mark == WARNING
    wrong = apart(40)
    assert (wrong.mark, wrong.text) == (
        FAILED, "40 are exact duplicates (200 validation samples against 200 of training), such as number 0"
    )  # fmt: skip


def test_large_sets_are_compared_in_part_and_the_line_says_so(subject_of, monkeypatch):
    monkeypatch.setattr(data, "_MOST_SAMPLES", 20)
    verdict = data.no_shared_samples(subject_of())
    assert verdict.text == "20 of 29 validation samples against 20 of 93 of training: no exact duplicate"


class Noisy:
    """Samples that are never the same twice, as augmentation makes them."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index] + torch.rand(4) + random.random() + np.random.rand()


def test_duplicates_are_found_through_augmentation(subject_of):
    rows, subject = numbers(40, 4), subject_of()
    subject.run.trainer.train_loader = DataLoader(Noisy(rows), 8)
    subject.run.trainer.val_loader = DataLoader(Noisy(rows[30:]), 8)
    state = torch.get_rng_state()
    assert data.no_shared_samples(subject).text.startswith("10 are exact duplicates (10 validation samples")
    assert torch.equal(state, torch.get_rng_state())


class Stream(IterableDataset):
    """Rows without length or index."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __iter__(self):
        return iter([{"x": row, "y": row[:2]} for row in self.rows])


def test_iterable_datasets_are_compared_by_their_first_batches(subject_of):
    subject = subject_of()
    rows = numbers(80, 4)
    subject.run.trainer.train_loader = DataLoader(Stream(rows[:60]), 8)
    subject.run.trainer.val_loader = DataLoader(Stream(rows[60:]), 8)
    verdict = data.no_shared_samples(subject)
    assert verdict.text == "the first 20 validation samples against the first 32 of training: no exact duplicate"
    verdict = machine.time_and_memory(subject)
    assert "train_loader has no length, so nobody knows how long an epoch is" in verdict.text
    assert data.samples_fit(subject).text.startswith("training and validation: a batch is x (8, 4) float32, ")


# --------------------------------------------------------------------------------------------------------- the learning


def test_a_loss_that_is_not_finite_fails(subject_of):
    verdict = learning.loss_is_finite(subject_of(hook=lambda trainer, output, goal: output.sum() * math.inf))
    assert verdict.mark == FAILED and re.match(r"(nan|-?inf) in training mode", verdict.text)


@pytest.mark.parametrize(("scale", "mark"), [(0.1, OK), (30.0, WARNING)])
def test_a_classifier_is_compared_with_guessing(subject_of, scale, mark):
    def hook(trainer, output, goal):
        return F.cross_entropy(output * scale, (goal[:, 0] > 0).long())

    verdict = learning.loss_is_finite(subject_of(hook=hook))
    assert verdict.mark == mark
    assert "ln(2) = 0.6931" in verdict.text


def test_a_cross_entropy_that_is_only_a_part_of_the_loss_is_not_compared(subject_of):
    def hook(trainer, output, goal):
        return F.cross_entropy(output, (goal[:, 0] > 0).long()) + output.square().mean()

    assert "guessing" not in learning.loss_is_finite(subject_of(hook=hook)).text


class Side(nn.Module):
    """Adds a layer of a width of its own, in a way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.main, self.side, self.how = nn.Linear(4, 2), nn.Linear(4, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "unused":
            return self.main(x)
        if self.how == "cut":
            return self.main(x) + self.side(x).detach()
        return self.main(x) + {"zero": 0.0, "used": 1.0}[self.how] * self.side(x)


@pytest.mark.parametrize(
    ("how", "mark", "text"),
    [
        ("used", OK, "all 4 in 4 steps"),
        ("cut", FAILED, "none in 4 steps: side.weight, side.bias\ntheir modules run, so something cuts the gradient"),
        ("unused", WARNING, "none in 4 steps, since their modules don't run: side.weight, side.bias"),
        ("zero", WARNING, "zero in 4 steps: side.weight, side.bias"),
    ],
)
def test_parameters_without_a_gradient_are_named(subject_of, how, mark, text):
    verdict = learning.gradients_arrive(subject_of(model=Side(how)))
    assert verdict.mark == mark and verdict.text.startswith(text)


def test_a_branch_that_begins_at_zero_is_no_fault(subject_of):
    class Residual(Side):
        def forward(self, x):
            return self.main(x) + self.gate(self.side(x))

    model = Residual("used")
    model.gate = nn.Linear(2, 2)
    nn.init.zeros_(model.gate.weight)
    assert learning.gradients_arrive(subject_of(model=model)).text == "all 6 in 4 steps"


def test_what_the_optimizer_lacks_is_named(subject_of):
    head_only = subject_of(optimizer=lambda parameters, lr: torch.optim.SGD(list(parameters)[2:], lr=lr))
    verdict = learning.optimizer_has_all(head_only)
    assert verdict.mark == FAILED
    assert verdict.text.startswith("2 of 4 are not in it and would never change: 0.weight, 0.bias\n")
    for parameter in list(head_only.run.model.parameters())[:2]:
        parameter.requires_grad_(False)
    assert learning.optimizer_has_all(head_only) == ok("2 trainable; frozen: 0.weight, 0.bias")


def test_an_optimizer_of_another_model_fails(subject_of):
    other = nn.Linear(4, 2)
    subject = subject_of(optimizer=lambda parameters, lr: torch.optim.SGD(other.parameters(), lr=lr))
    assert learning.optimizer_has_all(subject).text == (
        "it has none of the model's: was the model replaced after the optimizer was made?"
    )
    assert learning.loss_falls(subject).mark == FAILED


def sgd(**options):
    return lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, **options)


@pytest.mark.parametrize(
    ("options", "mark", "text"),
    [
        ({}, OK, "in 20 steps on 4 batches, learning rate 0.01"),
        ({"optimizer": sgd(), "learning_rate": 1.5}, WARNING, "at 0.15: the rate may be too high (--find-lr)"),
        ({"optimizer": sgd(), "learning_rate": 30.0}, FAILED, "at 0.3: the rate may be too high (--find-lr)"),
        ({"optimizer": sgd(maximize=True)}, FAILED, "the steps don't follow the loss"),
        ({"accumulation_steps": 2}, OK, "in 20 steps on 8 batches"),
    ],
)
def test_whether_the_loss_falls(subject_of, options, mark, text):
    verdict = learning.loss_falls(subject_of(**{"gradient_clip_value": 0, **options}))
    assert verdict.mark == mark and text in verdict.text, verdict


def test_one_batch_is_learned_without_dropout_and_climbing_fails(subject_of):
    verdict = learning.one_batch_can_be_learned(subject_of(learning_rate=0.05))
    assert verdict.mark == OK and verdict.text.endswith("ok is 10 % within 500, without dropout")
    wrong = learning.one_batch_can_be_learned(subject_of(optimizer=sgd(maximize=True)))
    assert wrong.mark == FAILED and "the loss never went below its start" in wrong.text


@pytest.mark.parametrize(
    ("losses", "mark", "text"),
    [
        ([2.0, 1.0, 0.2], OK, "2 to 0.2 (10 %) in 3 steps; RULE"),
        ([2.0] + [1.5] * 20, WARNING, "2 to 1.5 (75 %) in 21 steps; RULE\nit levels off: a loss with a floor above 0"),
        ([2.0 - 0.01 * i for i in range(100)], WARNING, "it was still falling: a small model or rate, or few steps"),
        ([2.0, 2.1, 2.0], FAILED, "the loss never went below its start"),
        ([0.5, -3.0], OK, "0.5 to -3 in 2 steps; RULE"),
        ([-1.0, -3.0], OK, "-1 to -3 in 2 steps; RULE"),
        ([math.nan], FAILED, "its loss is nan"),
        ([2.0, 0.1, math.nan], OK, "2 to 0.1 (5 %)"),
    ],
)
def test_the_verdict_on_one_batch_follows_its_losses(losses, mark, text):
    verdict = learning.judge_one_batch(losses, "RULE")
    assert verdict.mark == mark and text in verdict.text


# ----------------------------------------------------------------------------------------- scheduler and early stopping


def test_a_scheduler_of_another_optimizer_fails(subject_of):
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    verdict = control.scheduler_steps(subject_of(scheduler=lambda optimizer: StepLR(other, 1)))
    assert (verdict.mark, verdict.text) == (FAILED, "StepLR belongs to another optimizer than the trainer's")


def test_a_one_cycle_that_is_too_short_fails(subject_of):
    def one_cycle(optimizer):
        return OneCycleLR(optimizer, max_lr=0.1, total_steps=20)

    verdict = control.scheduler_steps(subject_of(scheduler=one_cycle))  # 3 epochs of 12 steps
    assert (verdict.mark, verdict.text) == (
        FAILED, "OneCycleLR is for 20 steps, the run has 36: it would fail there"
    )  # fmt: skip


def test_a_plateau_that_never_comes_to_lower_the_rate_is_a_warning(subject_of):
    def plateau(optimizer):
        return ReduceLROnPlateau(optimizer, patience=4)

    late = control.scheduler_steps(subject_of(scheduler=plateau))
    assert late.mark == WARNING and late.text.endswith("; the run has 3 validations, so it never falls")
    options = {"scheduler": plateau, "epochs": 30, "early_stopping_patience": 4}
    ended = control.scheduler_steps(subject_of(**options))
    assert ended.mark == WARNING and ended.text.endswith("; early stopping ends the run before that, after 4")


def test_a_plateau_whose_rate_does_not_fall_fails(subject_of):
    def stuck(optimizer):
        return ReduceLROnPlateau(optimizer, patience=2, min_lr=1.0)

    verdict = control.scheduler_steps(subject_of(scheduler=stuck))
    assert verdict.text == "ReduceLROnPlateau has patience 2, but the learning rate does not fall"


class Impatient(ReduceLROnPlateau):
    """Lowers the rate at the first bad validation, whatever its patience."""

    def step(self, metrics, epoch=None):
        self.num_bad_epochs += self.patience
        super().step(metrics, epoch)


def test_a_plateau_whose_rate_falls_too_soon_fails(subject_of):
    verdict = control.scheduler_steps(subject_of(scheduler=lambda optimizer: Impatient(optimizer, patience=2)))
    assert verdict.text == "ReduceLROnPlateau has patience 2, but the learning rate falls after 1"


def test_listening_to_a_scheduler_leaves_its_class_as_it_was(subject_of):
    verdict = control.scheduler_steps(subject_of(scheduler=lambda optimizer: StepLR(optimizer, 1)))
    assert verdict == ok("StepLR, each epoch: 1 time in a short run")
    assert "step" not in vars(StepLR)


@pytest.mark.parametrize(
    ("given", "mark", "text"),
    [
        (
            lambda trainer, batch_loss, val_loss: val_loss,
            OK,
            "steps on the validation loss; rate 0.01 to 0.001 after 2",
        ),
        (lambda trainer, batch_loss, val_loss: batch_loss, FAILED, ", a training loss; the validation loss is "),
        (lambda trainer, batch_loss, val_loss: 0.5 * val_loss, WARNING, "; the validation loss is "),
        (lambda trainer, batch_loss, val_loss: None, FAILED, "was stepped without a loss"),
    ],
)
def test_what_the_plateau_is_stepped_on(subject_of, given, mark, text):
    def train(self) -> None:
        for batch in self.train_loader:
            batch_loss = self._forward_batch(batch)
        self.scheduler.step(given(self, batch_loss.item(), self.validate()))

    subject = subject_of(variant(train=train), epochs=9, scheduler=lambda optimizer: Careful(optimizer, patience=1))
    verdict = control.scheduler_steps(subject)
    assert verdict.mark == mark and text in verdict.text


class Careful(ReduceLROnPlateau):
    """Takes no loss at all, too."""

    def step(self, metrics=None, epoch=None):
        super().step(1.0 if metrics is None else metrics, epoch)


def own_pace(self) -> None:
    """A loop of its own that never steps the scheduler or asks to stop; it may go on for ever."""
    while True:
        for batch in self.train_loader:
            self._forward_batch(batch).backward()
        self.validate()
        self.history["train_loss"].append(1.0)
        self.save_metrics()
        if not self.endless:
            return


def test_a_loop_of_its_own_that_forgets_verbs_is_a_warning(subject_of):
    subject = subject_of(variant(train=own_pace, endless=False), scheduler=ReduceLROnPlateau, early_stopping_patience=3)
    assert control.scheduler_steps(subject).text == (
        "ReduceLROnPlateau was never stepped in a short run of the trainer's own train()"
    )
    subject.restore()
    assert control.early_stopping_stops(subject) == warning(
        "the trainer's own train() never calls check_early_stopping"
    )


def test_a_loop_of_its_own_without_end_is_left(subject_of):
    subject = subject_of(variant(train=own_pace, endless=True))
    assert files.metrics_appear(subject) == learning.Verdict(
        SKIPPED, "the trainer's own train() did not end after one epoch"
    )


def test_early_stopping_that_is_off_must_stay_off(subject_of):
    assert control.early_stopping_stops(subject_of()) == ok("off (early_stopping_patience = 0)")

    def hasty(self, val_loss):
        BaseTrainer.check_early_stopping(self, val_loss)
        return self.early_stopping.bad >= 2

    hasty = variant(check_early_stopping=hasty)
    assert control.early_stopping_stops(subject_of(hasty)) == failed("it is off, but stops after 2")
    early = control.early_stopping_stops(subject_of(hasty, early_stopping_patience=5))
    assert early.text == "early_stopping_patience = 5, but the run stops after 2 validations without improvement"


# ----------------------------------------------------------------------------------------------- files, device, machine


def test_metrics_that_lack_an_entry_fail(subject_of):
    def save(self, state="running", **more):
        self.run_folder.write_json("metrics.json", {"state": state, "history": {"val_loss": [1.0]}})

    verdict = files.metrics_appear(subject_of(variant(save_metrics_to_file=save)))
    assert verdict.mark == FAILED
    assert verdict.text == "after a short run it lacks schema_version, trainer, run_id, best and 2 more"


def test_the_rehearsal_changes_nothing_that_it_borrows(subject_of):
    subject = subject_of()
    trainer = subject.run.trainer
    before = (trainer.train_loader, trainer.val_loader, trainer.config.epochs, set(vars(trainer)))
    heard = subject.rehearsal
    assert heard.ended and len(heard.val_losses) == 1 and heard.scheduler_steps == heard.val_losses
    new = set(vars(trainer)) - before[3]
    assert (trainer.train_loader, trainer.val_loader, trainer.config.epochs) == before[:3]
    assert not new & {"validate", "check_early_stopping", "_forward_batch"}
    assert "step" not in vars(trainer.scheduler) and ReduceLROnPlateau.step.__qualname__ == "ReduceLROnPlateau.step"
    content = json.loads(trainer.get_run_file_path("metrics.json").read_text())
    assert content["summary"]["steps"] == 4
    assert not trainer.get_model_save_path().exists()


def test_a_checkpoint_that_is_not_whole_fails(subject_of, monkeypatch):
    real = files.restore

    def forgetful(run, *checkpoint):
        real(run, *checkpoint)
        run.optimizer.state.clear()

    monkeypatch.setattr(files, "restore", forgetful)
    verdict = files.checkpoint_round_trip(subject_of())
    assert verdict.mark == FAILED and verdict.text.startswith("differs after loading: optimizer.state.0, ")


def test_a_save_checkpoint_of_its_own_that_writes_elsewhere_is_skipped(subject_of):
    elsewhere = variant(save_checkpoint=lambda self, epoch, is_best=False: None)
    assert files.checkpoint_round_trip(subject_of(elsewhere)).text == (
        "the trainer's own save_checkpoint writes nothing into checkpoints/"
    )


def test_differences_are_found_to_the_bit():
    one = {"a": torch.tensor([1.0, math.nan]), "b": [1, (2.0, "x")], "c": torch.tensor([1, 2])}
    assert differences(one, {"a": torch.tensor([1.0, math.nan]), "b": [1, (2.0, "x")], "c": torch.tensor([1, 2])}) == {}
    other = {"a": torch.tensor([1.0, 0.0]), "b": [1, (3.0, "x")], "c": torch.tensor([1, 3]), "d": 0}
    assert set(differences(one, other)) == {"a", "b[1][0]", "c", "d"}
    assert differences({"w": torch.tensor([4.0])}, {"w": torch.tensor([4.5])}) == {"w": 0.125}


def test_rounding_of_a_gpu_is_no_fault():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert files._next_step({"weights.w": 1e-7}, "1 kB", gpu).mark == OK
    assert files._next_step({"weights.w": 1e-3}, "1 kB", gpu).mark == FAILED
    assert files._next_step({"weights.w": 1e-7}, "1 kB", cpu).mark == FAILED


def test_what_is_on_another_device_is_named(subject_of):
    subject = subject_of()
    subject.run.trainer.extra = nn.Linear(2, 2)
    subject.run.trainer.extra.weight = nn.Parameter(torch.empty(2, 2, device="meta"))
    verdict = machine.all_on_device(subject)
    assert (verdict.mark, verdict.text) == (
        FAILED, "not on cpu: parameter extra.weight (meta)"
    )  # fmt: skip


@pytest.mark.parametrize(("free", "mark"), [(10**9, OK), (30_000, WARNING), (20_000, FAILED)])
def test_disk_space_is_compared_with_what_a_run_keeps(subject_of, monkeypatch, free, mark):
    subject = subject_of()
    subject.checkpoint_bytes = 5_000  # four at a time: two last, the best, the one that is being written
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    verdict = machine.disk_space(subject)
    assert verdict.mark == mark
    assert verdict.text.startswith("up to 20.4 kB: 4 checkpoints of 5.0 kB, 2 models of 176 B; ")


# ------------------------------------------------------------------------------------------------------------ the words


def test_lines_are_in_columns_and_further_lines_below_their_text():
    text = line("disk space", warning("first\n  second"))
    assert text == f"warning  {'disk space':<32}  first\n{'':<43}second"
    assert summary([ok(""), warning(""), failed("")], "1 s") == (
        "1 ok, 1 warning, 1 failed, 0 skipped in 1 s: mend what failed before a long run"
    )
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"


def test_at_a_terminal_lines_are_wrapped_and_coloured(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = line("disk space", failed("word " * 20)).splitlines()
    assert rows[0].startswith("\x1b[1;31mFAILED   \x1b[0mdisk space") and len(rows) == 3
    assert all(len(row) < 90 for row in rows[1:])
    monkeypatch.setenv("NO_COLOR", "1")
    assert line("disk space", failed("word " * 20)).splitlines() == [
        "FAILED   " + rows[0].split("\x1b[0m")[1],
        *rows[1:],
    ]
