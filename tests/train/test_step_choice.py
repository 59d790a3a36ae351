"""`step = auto`: which form a run gets, what it says about it, and that a resumed run keeps it."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from step_trainers import HookTrainer, recorded_only
from torch.utils.data import DataLoader

from data.tensor_loader import TensorLoader
from train import step_choice as choice
from train.base_trainer import BaseTrainer, RunOptions
from train.step_choice import choose


def trainer_of(folder: Path, **settings) -> BaseTrainer:
    return HookTrainer(folder, step="auto", **settings)


def test_a_short_run_is_not_compiled(tmp_path):
    form, reason = choose(trainer_of(tmp_path).run_context)
    assert form == "eager"
    assert reason.startswith("compiling takes about 14 s and saves about 0.0")
    assert reason.endswith(" s of 36 steps")


def test_a_long_run_of_a_small_model_is_compiled_as_a_whole(tmp_path):
    form, reason = choose(trainer_of(tmp_path, epochs=100_000).run_context)
    assert form == "epoch"
    assert reason.endswith(" s of 1,200,000 steps")


def test_a_long_run_without_a_compiler_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(choice.shutil, "which", lambda name: None)
    form, reason = choose(trainer_of(tmp_path, epochs=100_000).run_context)
    assert form == "eager"
    assert reason.endswith("but there is no C++ compiler (Debian: apt install g++)")


def test_a_dataloader_is_told_what_would_be_faster(tmp_path):
    rows = [{"x": row, "y": goal} for row, goal in zip(torch.zeros(16, 4), torch.zeros(16, 2), strict=True)]
    trainer = trainer_of(tmp_path, epochs=100_000, train_loader=DataLoader(rows, batch_size=8))
    expected = "train_loader is a DataLoader; compiled epochs need the data at hand, as a TensorLoader has it"
    assert choose(trainer.run_context) == ("eager", expected)


def test_a_model_that_computes_long_is_left_to_eager(tmp_path):
    trainer = trainer_of(tmp_path, epochs=100_000)
    trainer.run_context.flop_counts["train_loader"] = (10, 1e9)
    form, reason = choose(trainer.run_context)
    assert (form, reason) == ("eager", "a step computes 24000 MFLOP, so what surrounds it hardly counts")


def test_the_choice_does_not_depend_on_the_clock_or_on_the_loaders_state(tmp_path):
    trainer = trainer_of(tmp_path, epochs=100_000)
    first = choose(trainer.run_context)
    list(trainer.train_loader)
    assert choose(trainer.run_context) == first
    assert isinstance(trainer.train_loader, TensorLoader)


def test_what_was_chosen_is_logged_once_in_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer_of(tmp_path).train()
    lines = [record.getMessage() for record in caplog.records if "step = " in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("step = eager (auto): compiling takes about 14 s and saves about ")


def test_a_resumed_run_keeps_the_form_that_was_chosen(tmp_path, monkeypatch):
    """Also where the choice would now be another one, as the run is to be longer."""
    with recorded_only(monkeypatch):
        monkeypatch.setattr(choice, "_WORTHWHILE", 0.0)
        first = trainer_of(tmp_path, epochs=2)
        first.train()
        assert first.run_context.step.name == "epoch"
        monkeypatch.undo()
        resumed = resume(first, epochs=3)
    assert resumed.run_context.step.name == "epoch"


def test_a_resumed_run_does_not_try_again_what_fell_back(tmp_path, monkeypatch):
    with recorded_only(monkeypatch):
        first = HookTrainer(tmp_path, step="epoch", epochs=2)
        first.run_context.step.fall_back("a reason")
        first.train()
        resumed = resume(first, step="epoch", epochs=3)
    assert not resumed.run_context.step.fast


def resume(first: BaseTrainer, **settings) -> BaseTrainer:
    """Build the trainer again, to go on with its run."""
    BaseTrainer.options = RunOptions(resume=str(first.run_folder.path))
    try:
        folder = first.config.artifacts_dir
        changes = {"step": "auto", **settings}
        return HookTrainer(folder, **changes)
    finally:
        BaseTrainer.options = RunOptions()


@pytest.mark.parametrize("form", ["compiled", "epoch"])
def test_a_loop_of_ones_own_is_told_that_the_form_has_no_effect(form, tmp_path, caplog):
    class OwnLoopTrainer(BaseTrainer):
        """Trains by itself."""

        def __init__(self) -> None:
            made = HookTrainer(tmp_path / "parts")
            self.config = dataclasses.replace(made.config, step=form)
            for name in ("model", "train_loader", "val_loader", "optimizer", "scheduler", "progress_bar"):
                setattr(self, name, getattr(made, name))
            super().__init__()

        def compute_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model(batch["x"]).square().mean()

        def train(self) -> None:
            self.validate()

    trainer = OwnLoopTrainer()
    trainer.train()
    assert f"step = {form} has no effect: OwnLoopTrainer has a train() of its own" in caplog.text
    assert trainer.run_context.step.name == "eager"
