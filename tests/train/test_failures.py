"""Where numbers went wrong is found, said and kept; the trainer is as it was afterwards."""

import json
import math
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from step_trainers import HookTrainer, numbers, snapshot
from torch import nn
from torch.utils.data import DataLoader, Dataset

from data.loaders import make_loader
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer, RunOptions
from train.errors import TrainingError
from train.failures.files import read_failure, write_failure
from train.failures.report import BadStep, numbers_gone_wrong
from train.seeding import random_states
from train.steps.eager import group_microbatches
from train.steps.guard import StepSnapshot

COUNT, SIZE = 40, 8


class Rows(Dataset):
    """Dicts of four numbers and two to be found from them."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.y = x, torch.sin(x @ numbers(4, 2, seed=9))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def rows(**changed: float) -> torch.Tensor:
    """Rows in which some samples are one value: `s7=nan`."""
    x = numbers(COUNT, 4)
    for name, value in changed.items():
        x[int(name[1:])] = value
    return x


def tensors(x: torch.Tensor, shuffle: bool = False) -> TensorLoader:
    return TensorLoader({"x": x, "y": Rows(x).y}, SIZE, shuffle=shuffle)


def bad_step(trainer: HookTrainer, steps: int = 0, split: str = "train", **more: Any) -> BadStep:
    """A bad step of the first epoch, which begins with the random numbers as they are."""
    loader = trainer.train_loader if split == "train" else trainer.val_loader
    start = None if getattr(loader, "draws_by_epoch", False) else trainer.run_context.random_sources.state_dict()
    return BadStep(split, 0, steps, steps, start, **{"begun": StepSnapshot(None, torch.get_rng_state()), **more})


def report_of(trainer: HookTrainer) -> dict[str, Any]:
    return json.loads(trainer.get_run_file_path("failure/report.json").read_text())


def diagnosed(trainer: HookTrainer, steps: int = 0, split: str = "train") -> tuple[str, dict[str, Any]]:
    """The error's text and the report; the trainer must be the same before and after."""
    before, random, meter = snapshot(trainer), random_states(), trainer.run_context.meter
    modes = [module.training for module in trainer.model.modules()]
    error = numbers_gone_wrong(trainer.run_context, bad_step(trainer, steps, split))
    assert isinstance(error, TrainingError)
    after = snapshot(trainer)
    assert all(torch.equal(before[key].nan_to_num(), after[key].nan_to_num()) for key in before)
    assert torch.equal(random["torch"], torch.get_rng_state()) and random["python"] == random_states()["python"]
    assert trainer.run_context.meter is meter and len(meter) == 0
    assert modes == [module.training for module in trainer.model.modules()]
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())
    return str(error), report_of(trainer)


LOADERS = {
    "DataLoader": lambda data: DataLoader(data, SIZE),
    "shuffled DataLoader": lambda data: DataLoader(data, SIZE, shuffle=True),
    "two workers": lambda data: DataLoader(data, SIZE, shuffle=True, num_workers=2),
    "make_loader": lambda data: make_loader(data, SIZE, shuffle=True),
    "TensorLoader": lambda data: tensors(data.x, shuffle=True),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_bad_sample_is_named_with_every_kind_of_loader(kind, tmp_path):
    trainer = HookTrainer(tmp_path, train_loader=LOADERS[kind](Rows(rows(s7=math.nan))))
    start = trainer.run_context.random_sources.state_dict()
    trainer.train_loader.set_epoch(0) if hasattr(trainer.train_loader, "set_epoch") else None
    bad = [
        bool(step_input.microbatches[0]["x"].isnan().any())
        for step_input in group_microbatches(trainer.train_loader, 1)
    ].index(True)
    trainer.run_context.random_sources.load_state_dict(start)
    text, report = diagnosed(trainer, steps=bad)
    assert report["finding"]["kind"] == "batch"
    assert "the data: field 'x' is not finite in sample 7 of train_loader's dataset" in text
    assert f"in step {bad + 1} of epoch 1 (step {bad + 1} of the run)" in text
    assert len(report["indices"]) == 1 and 7 in report["indices"][0]
    kept = read_failure(trainer.run_folder.path)
    assert kept.batches[0]["x"].isnan().any(dim=1).sum() == 1


def test_a_layer_that_makes_nan_is_named_with_its_operation(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.Tanh(), Apply(torch.log)), nn.Linear(6, 2))
    trainer = HookTrainer(tmp_path, model=model)
    text, report = diagnosed(trainer, steps=2)
    assert report["finding"]["kind"] == "layer" and report["first_bad_layer"] == "model.1.1"
    assert "the first bad layer is model.1.1 (Apply): its output has" in text
    assert "first NaN made by log, " in text and "self.function(x)" in text
    assert "add an epsilon" in text and "learning_rate=0.001" in text
    finite = {layer["name"]: layer["output"]["finite"] for layer in report["layers"]}
    assert finite["model.1.0"] and not finite["model.1.1"] and not finite["model"]
    weights = load_file(trainer.run_folder.path / "failure/weights.safetensors")
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_code_between_layers_belongs_to_the_module_around_them(tmp_path):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.leave((self.enter(x) - 5).sqrt())

    text, report = diagnosed(HookTrainer(tmp_path, model=nn.Sequential(Block())))
    assert report["first_bad_layer"] == "model.0"
    assert "model.0 (Block): before model.0.leave (Linear), whose input has" in text
    assert "first NaN made by sqrt" in text


def test_a_root_at_zero_is_found_in_backward(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.Sequential(Apply(lambda x: (x * 0).sqrt()), nn.Linear(6, 2)))
    text, report = diagnosed(HookTrainer(tmp_path, model=model))
    assert report["finding"]["kind"] == "gradient" and report["first_bad_layer"] == "model.1.0"
    assert "the loss is finite, but 2 of 4 parameters' gradients are not finite" in text
    assert "first bad gradient made by SqrtBackward0" in text and "x * 0" in text
    assert [entry["finite"] for entry in report["gradients"]] == [False, False, True, True]


def test_a_gradient_of_the_loss_function_is_told_from_a_layers(tmp_path):
    trainer = HookTrainer(tmp_path, hook=lambda trainer, output, goal: (output * 0).norm() + output.mean())
    trainer.hook = lambda trainer, output, goal: ((output - output.detach()).square().sum()).sqrt()
    text, report = diagnosed(trainer)
    assert report["finding"]["kind"] == "gradient" and report["first_bad_layer"] is None
    assert "from the loss function on, after the model" in text


def test_a_weight_that_is_not_finite_names_the_last_good_checkpoint(tmp_path):
    trainer = HookTrainer(tmp_path)
    trainer.record.progress.epoch = 1
    trainer.save_checkpoint(1)
    trainer.run_context.saver.flush()
    with torch.no_grad():
        trainer.model[3].weight[0, 0] = math.inf
    text, report = diagnosed(trainer)
    assert report["finding"]["kind"] == "parameter"
    assert "the weights were not finite before this step: model.3.weight" in text
    assert "newest checkpoint with finite weights is epoch-00001" in text


def test_only_the_loss(tmp_path):
    trainer = HookTrainer(tmp_path, hook=lambda trainer, output, goal: F.mse_loss(output, goal))
    trainer.hook = lambda trainer, output, goal: (output.mean() - 100).log()
    text, report = diagnosed(trainer)
    assert report["finding"]["kind"] == "loss" and report["losses"] == ["nan"]
    assert "the loss function, after the model; all layers gave finite values" in text
    assert "first NaN made by log, tests/train/test_failures.py:" in text


def test_a_validation_names_its_batch(tmp_path):
    trainer = HookTrainer(tmp_path)
    trainer.val_loader = tensors(rows(s19=math.inf))
    text, report = diagnosed(trainer, split="val")
    assert "in the validation after epoch 0" in text and "in sample 19 of val_loader's dataset" in text
    assert report["first_batch"] == 3 and report["indices"] == [list(range(16, 24))]


def test_a_validation_is_that_of_the_averaged_weights(tmp_path):
    trainer = HookTrainer(tmp_path, ema_decay=0.9)
    trainer.run_context.average.averages[0].fill_(math.nan)
    text, report = diagnosed(trainer, split="val")
    assert report["finding"]["kind"] == "parameter" and "model.0.weight" in text
    assert load_file(trainer.run_folder.path / "failure/weights.safetensors")["0.weight"].isnan().all()


def test_a_norm_that_overflows(tmp_path):
    trainer = HookTrainer(tmp_path)
    trainer.hook = lambda trainer, output, goal: 1e25 * output.sum()
    text, report = diagnosed(trainer)
    assert report["finding"]["kind"] == "norm" and "overflows, while each of its values is finite" in text
    assert report["gradient_norm"] > 1e24


def test_what_does_not_come_again_is_said(tmp_path):
    text, report = diagnosed(HookTrainer(tmp_path))
    assert report["finding"]["kind"] == "none" and "everything was finite when the step was repeated" in text


def test_strange_samples_are_noted(tmp_path):
    trainer = HookTrainer(tmp_path, train_loader=tensors(rows(s3=1e9, s5=0.0)), gradient_clip_value=0.0)
    trainer.hook = lambda trainer, output, goal: (output.mean() - 100).log()
    text, _ = diagnosed(trainer)
    assert "field 'x' is extreme in sample 3" in text and "field 'x' is all zeros in sample 5" in text
    assert "try: look at sample 3: extreme" in text and "and gradient_clip_value=1" in text


def test_what_was_not_finite_in_a_good_step_too_is_not_blamed(tmp_path):
    """Missing targets are NaN, say, and the loss leaves them out."""
    x = rows()
    loader = TensorLoader({"x": x, "y": torch.where(x[:, :2] > 0, math.nan, x[:, :2])}, SIZE)
    trainer = HookTrainer(tmp_path, train_loader=loader)
    trainer.hook = lambda trainer, output, goal: (output - 100).log().mean()
    _, report = diagnosed(trainer, steps=2)
    assert report["finding"]["kind"] == "loss"


def test_masks_of_infinity_are_not_blamed(tmp_path):
    """Nor are scores of -inf, where the softmax over them is finite."""
    masked = Apply(lambda x: x.masked_fill(torch.arange(6) < 2, -math.inf))
    model = nn.Sequential(nn.Linear(4, 6), masked, nn.Softmax(dim=1), Apply(lambda x: (x - 2).log()), nn.Linear(6, 2))
    _, report = diagnosed(HookTrainer(tmp_path, model=model))
    assert report["first_bad_layer"] == "model.3"


def test_dropout_masks_are_those_of_the_step(tmp_path):
    """A number that is bad only under one mask: another random state would not find it."""
    seen = []
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 2))
    trainer = HookTrainer(tmp_path, model=model)
    model[1].register_forward_hook(lambda module, args, output: seen.append(output == 0) if module.training else None)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trainer.model.train()
    batch = next(iter(group_microbatches(trainer.train_loader, 1))).microbatches[0]
    trainer._forward_batch(batch)
    torch.manual_seed(6)
    before = snapshot(trainer)
    numbers_gone_wrong(trainer.run_context, BadStep("train", 0, 0, 0, None, StepSnapshot(None, state)))
    assert len(seen) == 2 and torch.equal(*seen)
    assert all(torch.equal(before[key], value) for key, value in snapshot(trainer).items())  # batch norm's too


def test_an_accumulation_tells_which_batch(tmp_path):
    trainer = HookTrainer(tmp_path, train_loader=tensors(rows(s19=math.nan)), accumulation_steps=2)
    text, report = diagnosed(trainer, steps=1)
    assert "in sample 19" in text and len(report["losses"]) == 1 and report["first_batch"] == 3
    assert report["indices"] == [list(range(16, 24)), list(range(24, 32))]


def test_gradients_of_an_accumulation_are_the_steps_own(tmp_path):
    trainer = HookTrainer(tmp_path, train_loader=tensors(rows()), accumulation_steps=3, model=nn.Linear(4, 2))
    _, report = diagnosed(trainer)
    loader = trainer.train_loader
    F.mse_loss(trainer.model(loader.tensors["x"][: 3 * SIZE]), loader.tensors["y"][: 3 * SIZE]).backward()
    expected = {f"model.{name}": float(value.grad.norm()) for name, value in trainer.model.named_parameters()}
    assert {entry["name"]: entry["norm"] for entry in report["gradients"]} == pytest.approx(expected, rel=1e-5)


def test_a_full_disk_does_not_hide_the_error(tmp_path, monkeypatch):
    trainer = HookTrainer(tmp_path, train_loader=tensors(rows(s3=math.nan)))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.failures.files.write_file", full)
    text = str(numbers_gone_wrong(trainer.run_context, bad_step(trainer)))
    assert "sample 3 of train_loader's dataset" in text
    assert "could not be kept for a replay: cannot write" in text and "No space left on device" in text
    assert not list(trainer.run_folder.path.glob("*failure*"))


def test_a_dataset_that_fails_the_second_time_does_not_hide_the_error(tmp_path):
    trainer = HookTrainer(tmp_path)

    class Gone:
        def __iter__(self) -> Any:
            raise OSError("the disk is gone")

    trainer.train_loader = Gone()
    text = str(numbers_gone_wrong(trainer.run_context, bad_step(trainer)))
    assert "the bad batch could not be read again: OSError: the disk is gone" in text


def test_batches_that_are_not_plain_are_left_out(tmp_path):
    pair = namedtuple("Pair", "x y")
    saved = read_failure_of(tmp_path, [pair(torch.ones(2), 1)])
    assert saved.batches is None
    plain = [{"x": torch.ones(2), "names": ["a", "b"], "pair": (1, 2.5)}]
    assert read_failure_of(tmp_path, plain).batches[0]["pair"] == (1, 2.5)


def read_failure_of(run: Path, batches: list[Any]) -> Any:
    from train.failures.files import SavedFailure

    write_failure(run, SavedFailure({"trainer": "X"}, {}, {"torch_random": torch.get_rng_state()}, batches))
    return read_failure(run)


def test_lower_precision_is_a_suggestion(tmp_path):
    trainer = HookTrainer(tmp_path, precision="bf16")
    trainer.hook = lambda trainer, output, goal: (output.float().mean() - 100).log()
    assert "start a run with precision=fp32" in diagnosed(trainer)[0]


@pytest.fixture(autouse=True)
def new_runs():
    """Options that another test module may have left."""
    before, BaseTrainer.options = BaseTrainer.options, RunOptions()
    yield
    BaseTrainer.options = before


def test_a_learning_rate_out_of_all_reason_is_answered_with_the_default(tmp_path):
    trainer = HookTrainer(tmp_path, learning_rate=1e30)
    for parameter in trainer.model.parameters():
        parameter.data.mul_(1e30)
    text, report = diagnosed(trainer)
    assert report["suggestions"] == [
        "start a new run with learning_rate=0.001, the default, or one that --find-lr finds: 1e+30 is out of all reason"
    ]
    assert "try: start a new run with learning_rate=0.001" in text
