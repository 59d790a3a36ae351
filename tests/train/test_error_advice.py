"""An error in a user's code, wherever in a run: the user's line, the values that were there, an advice that follows."""

import importlib
import json
import re
from textwrap import dedent, indent
from typing import NamedTuple

import pytest
import torch

from train.error_advice import advice, explained, is_out_of_memory

FRAME = '''
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import *
from torch.utils.data import DataLoader, TensorDataset

from config import ConfigParser
from config.mistaken_trainer_config import MistakenTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
from train.callbacks import Callback


class {name}Trainer(BaseTrainer):
    """One of the mistakes that people make."""

    def __init__(self):
        self.config = ConfigParser.get(MistakenTrainerConfig)
        torch.manual_seed(1)
        X = torch.randn(64, 4)
        Y = (X[:, 0] > 0).long()
        self.model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        self.train_loader = TensorLoader({{"x": X[:48], "y": Y[:48]}}, 8, shuffle=True)
        self.val_loader = TensorLoader({{"x": X[48:], "y": Y[48:]}}, 8)
{parts}
        self.optimizer = SGD(self.model.parameters(), lr=0.1)
        self.scheduler = {scheduler}
        self.init_progress_bar(total=100)
        super().__init__()

{methods}
'''
HOOK = """
def compute_loss(self, batch):
    return F.cross_entropy(self.model(batch["x"]), batch["y"])
"""


SETTINGS = '''
from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class MistakenTrainerConfig(BaseTrainerConfig):
    """Settings of all of them."""
'''


@pytest.fixture(scope="module")
def mistaken_project(shared_project):
    """A project with the settings of the trainers below."""
    (shared_project.path / "config" / "mistaken_trainer_config.py").write_text(SETTINGS)
    return shared_project


class Case(NamedTuple):
    """A mistake, as the lines that make it, and what must be said of it.

    Attributes:
        texts: parts of what is written, with LINE for the number of the line that has `# here`.
        parts: lines of `__init__`.
        methods: methods of the trainer.
        scheduler: expression of the scheduler.
        code: exit code.
    """

    texts: tuple[str, ...]
    parts: str = ""
    methods: str = HOOK
    scheduler: str = "ExponentialLR(self.optimizer, 0.9)"
    code: int = 4


TUPLES = """
self.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8)
self.val_loader = DataLoader(TensorDataset(X[48:], Y[48:]), 8)
"""
CASES = {
    "Label": Case(
        ("LINE in compute_loss: IndexError: Target 2 is out of bounds.",
         "The model has 2 outputs, so labels must be 0 to 1; label 2 is in row 5 of the batch.",
         "Labels that count from 1 must become 0, 1, ... (labels - 1); else the model needs one more output.",
         "It came in epoch 1, step 6 (step 6 of the run); row 5 is sample 45 of train_loader."),
        parts="Y[45] = 2\nself.train_loader = TensorLoader({'x': X[:48], 'y': Y[:48]}, 8)",
        methods="def compute_loss(self, batch):\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y'])  # here",
    ),
    "LabelOfShuffled": Case(
        ("labels must be 0 to 1; label 7 is in row ", "Give the model 8 outputs, or mend the labels.",
         " is sample 30 of train_loader."),
        parts="Y[30] = 7\nself.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, shuffle=True)\n"
        "self.val_loader = DataLoader(TensorDataset(X[48:], Y[48:]), 8)",
        methods="def compute_loss(self, batch):\n    x, y = batch\n    return F.cross_entropy(self.model(x), y)",
    ),
    "LabelInValidation": Case(
        ("label -1 is in row 3 of the batch.", "Labels may not be negative",
         "It came in the validation after epoch 1, batch 2; row 3 is sample 11 of val_loader."),
        parts="Y[59] = -1\nself.val_loader = DataLoader(TensorDataset(X[48:], Y[48:]), 8)\n"
        "self.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8)",
        methods="def compute_loss(self, batch):\n    x, y = batch\n    return F.cross_entropy(self.model(x), y)",
    ),
    "Accumulated": Case(
        ("label 3 is in row 1", "It came in epoch 1, step 2 (step 2 of the run); row 1 is sample 41 of train_loader."),
        parts="Y[41] = 3\nself.config.accumulation_steps = 3\n"
        "self.train_loader = TensorLoader({'x': X[:48], 'y': Y[:48]}, 8)",
    ),
    "MetricAlone": Case(
        ("LINE in compute_loss: TypeError: iteration over a 0-d tensor",
         '_collect_batch_metrics takes a dict, such as {"accuracy": value}; it was given tensor () float32.'),
        methods="def compute_loss(self, batch):\n"
        "    if self.run_context.in_session:\n        self._collect_batch_metrics(torch.tensor(1.0))  # here\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y'])",
    ),
    "MetricAtOnce": Case(  # the code is wrong, not the data: 4
        ("fails with the first batch of train_loader", "takes a dict, such as"),
        methods="def compute_loss(self, batch):\n    self._collect_batch_metrics(batch['x'].mean())\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y'])",
    ),
    "MetricText": Case(
        ("LINE in compute_loss: ValueError: could not convert string to float: 'high'",
         "The metric 'accuracy' is 'high'; it must be a number or a tensor."),
        methods="def compute_loss(self, batch):\n"
        "    if self.run_context.in_session:\n        self._collect_batch_metrics({'accuracy': 'high'})  # here\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y'])",
    ),
    "Key": Case(
        ("LINE in compute_loss: KeyError: 'labels'", "batch has 'x', 'label'; did you mean 'label'?",
         "It came in epoch 1, step 6 (step 6 of the run); samples 4"),
        parts="self.train_loader = TensorLoader({'x': X[:48], 'label': Y[:48]}, 8)\n"
        "self.val_loader = TensorLoader({'x': X[48:], 'label': Y[48:]}, 8)\nself.calls = 0",
        methods="def compute_loss(self, batch):\n    self.calls += 1\n"
        "    y = batch['label' if self.calls < 6 else 'labels']  # here\n"
        "    return F.cross_entropy(self.model(batch['x']), y)",
    ),
    "Shapes": Case(
        ("LINE in compute_loss: RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x3 and 4x16)",
         "layer 0, Linear(in_features=4, out_features=16, bias=True), takes 4 values a row; it was given 3.",
         "there: x (8, 3) float32", "It came in the validation after epoch 1, batch 1; samples 0, 1, 2"),
        parts="self.calls = 0",
        methods="def compute_loss(self, batch):\n    x = batch['x']\n    self.calls += 1\n    if self.calls > 6:\n"
        "        x = x[:, :3]\n    return F.cross_entropy(self.model(x), batch['y'])  # here",
    ),
    "Container": Case(
        ("LINE in compute_loss: AttributeError: 'list' object has no attribute 'shape'",
         "batch is list of 2: tensor (8, 4) float32, tensor (8,) int64", "It came in epoch 1, step 3 "),
        parts=TUPLES + "\nself.calls = 0",
        methods="def compute_loss(self, batch):\n    self.calls += 1\n"
        "    n = batch.shape[0] if self.calls > 2 else 8  # here\n"
        "    return F.cross_entropy(self.model(batch[0]), batch[1])",
    ),
    "Memory": Case(
        ("LINE in compute_loss: RuntimeError:", "allocate", "Make batch_size smaller; accumulation_steps = 2",
         "`--find-batch-size` finds the largest that fits"),
        parts="self.calls = 0",
        methods="def compute_loss(self, batch):\n    self.calls += 1\n"
        "    w = torch.empty(10**14 if self.calls > 3 else 1)  # here\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y'])",
    ),
    "AfterTraining": Case(
        ("LINE in after_training: FileNotFoundError: ", "There is no such file. Relative paths begin at ",
         "Did you mean "),
        methods=HOOK + "\ndef after_training(self):\n    open('config.inni')  # here\n", code=3,
    ),
    "InCallback": Case(
        ("callback Notes failed in on_epoch_end: ", "LINE in on_epoch_end: KeyError: 'train_los'",
         "numbers has 'train_loss', ", "did you mean 'train_loss'?"),
        parts="class Notes(Callback):\n    def on_epoch_end(self, trainer, epoch, numbers):\n"
        "        numbers['train_los']  # here\nself.callbacks = [Notes()]",
    ),
    "Schedule": Case(
        ("self.scheduler.step(): ValueError: Tried to step 7 times.", "The schedule was made for 6 steps: total_steps "
         "must be the run's optimizer steps"),
        scheduler="OneCycleLR(self.optimizer, 0.1, total_steps=6)",
    ),
    "Lambda": Case(
        ("LINE in <lambda>: IndexError: list index out of range",),
        scheduler="LambdaLR(self.optimizer, lambda epoch: [1.0, 0.5][epoch])  # here",
    ),
    "Detached": Case(
        ("a loss without gradient: it does not depend on the model's trainable",),
        methods="def compute_loss(self, batch):\n"
        "    return F.cross_entropy(self.model(batch['x']), batch['y']).detach()",
        code=2,
    ),
    "Verbose": Case(
        ("LINE in __init__: ReduceLROnPlateau has no argument 'verbose' in torch", "Leave it out"),
        scheduler="ReduceLROnPlateau(self.optimizer, verbose=True)  # here", code=2,
    ),
    "Doubles": Case(
        ("LINE in after_training: RuntimeError: mat1 and mat2 must have the same dtype, but got Double and Float",
         "numpy makes float64, the model's weights are Float: give it .float() of the data."),
        methods=HOOK + "\ndef after_training(self):\n    import numpy as np\n"
        "    self.model(torch.from_numpy(np.zeros((2, 4))))  # here\n",
    ),
    "Embedding": Case(
        ("layer 0, Embedding(10, 4), has 10 rows, so indices must be 0 to 9; index 12 is in row 2 of the batch.",
         "Give it 13 rows, or mend the indices.", "row 2 is sample 18 of train_loader."),
        parts="W = torch.arange(64) % 10\nW[18] = 12\n"
        "self.model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))\n"
        "self.train_loader = TensorLoader({'x': W[:48], 'y': Y[:48]}, 8)\n"
        "self.val_loader = TensorLoader({'x': W[48:], 'y': Y[48:]}, 8)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_error_names_the_users_line_and_what_follows(mistaken_project, name):
    case = CASES[name]
    source = FRAME.format(
        name=name, parts=indent(dedent(case.parts), " " * 8), scheduler=case.scheduler,
        methods=indent(dedent(case.methods), " " * 4),
    )  # fmt: skip
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() + "_trainer.py"
    (mistaken_project.path / "train" / file).write_text(source)
    done = mistaken_project.run(name, "epochs=3", "plot_at_end=off", "step=eager")
    line = next((n for n, text in enumerate(source.splitlines(), 1) if text.endswith("# here")), 0)
    assert done.returncode == case.code, done.stderr
    assert "Traceback" not in done.stderr
    for text in case.texts:
        assert text.replace("LINE", f"train/{file}:{line}") in done.stderr, done.stderr
    (mistaken_project.path / "train" / file).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["compiled", "epoch"])
def test_a_compiled_step_names_the_users_line_and_sample_too(mistaken_project, step):
    case = CASES["LabelOfShuffled"]
    source = FRAME.format(
        name="Compiled", parts=indent(dedent(case.parts), " " * 8), scheduler=case.scheduler,
        methods=indent(dedent(case.methods), " " * 4),
    )  # fmt: skip
    path = mistaken_project.path / "train" / "compiled_trainer.py"
    path.write_text(source)
    done = mistaken_project.run("Compiled", "epochs=3", "plot_at_end=off", f"step={step}")
    path.unlink()
    assert done.returncode == 4, done.stderr
    assert "train/compiled_trainer.py:37 in compute_loss: IndexError: Target 7 is out of bounds." in done.stderr
    for text in case.texts:
        assert text in done.stderr


def test_what_is_read_in_train_log_says_where_in_the_run_it_was(mistaken_project):
    source = FRAME.format(
        name="Logged", parts="        Y[45] = 2\n", scheduler="ExponentialLR(self.optimizer, 0.9)",
        methods=indent(HOOK, "    "),
    )  # fmt: skip
    (mistaken_project.path / "train" / "logged_trainer.py").write_text(source)
    mistaken_project.run("Logged", "epochs=1", "plot_at_end=off")
    (run,) = mistaken_project.runs("Logged")
    log = (run / "train.log").read_text()
    assert "Traceback" in log and "is sample 45 of train_loader." in log
    assert json.loads((run / "metrics.json").read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18.0 GB)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, yes):
    assert is_out_of_memory(error) is yes


def caught(function):
    """The error of a call."""
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("it raises nothing")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: torch.nn.Linear(4, 2)(torch.ones(3, 4, dtype=torch.int64)), "the data is of integers (Long)"),
        (lambda: torch.nn.Conv2d(3, 4, 3)(torch.ones(2, 1, 8, 8)), "takes 3 channels"),
        (lambda: torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(2)), "Classes are int64"),
        (lambda: torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(2, 1).long()), "labels.squeeze(1)"),
        (lambda: torch.nn.functional.binary_cross_entropy(torch.ones(2) * 3, torch.ones(2)), "with_logits"),
        (lambda: torch.ones(2).sum().backward(), "Nothing that is trained was used"),
        (lambda: torch.nn.BatchNorm1d(3)(torch.ones(1, 3)), "drop_last=True"),
        (lambda: torch.ones(2, requires_grad=True).numpy(), ".detach().cpu().numpy()"),
        (lambda: torch.optim.LBFGS([torch.ones(2, requires_grad=True)]).step(), "needs a train() of your own"),
        (lambda: torch.nn.Linear(3, 4, biass=True), "did you mean 'bias'?"),
        (lambda: __import__("no_such_package"), "pip install no_such_package"),
        (
            lambda: importlib.import_module("data.tensorloader"),
            "There is no data/tensorloader.py: did you mean data.tensor_loader?",
        ),
        (lambda: importlib.import_module("train.callbacks.zzz"), "There is no train/callbacks/zzz.py in "),
        (lambda: torch.nn.Linear(2, 2).wieght, "Did you mean weight?"),
        (
            lambda: torch.optim.SGD(torch.nn.Sequential(torch.nn.Linear(2, 2)), lr=0.1),
            "such as self.model.parameters()",
        ),
        (lambda: torch.optim.Adam([torch.zeros(1)], learning_rate=0.1), "did you mean 'lr'?"),
    ],
)
def test_an_advice_follows_from_the_error(function, text):
    assert text in "\n".join(advice(caught(function)))


def test_an_unknown_error_gets_no_advice():
    def fail():
        raise ValueError("the moon is full")

    assert advice(caught(fail)) == []
    assert re.fullmatch(r"\S+test_error_advice.py:\d+ in fail: ValueError: the moon is full", explained(caught(fail)))


def test_an_error_on_the_gpu_says_how_to_find_its_line():
    text = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other"
    told = explained(RuntimeError(text + " API call.\nCompile with `TORCH_USE_CUDA_DSA`"))
    assert told.startswith(
        "RuntimeError: CUDA error: device-side assert triggered\n  A GPU kernel was given an index out"
    )
    assert "`device=cpu` names" in told and "CUDA_LAUNCH_BLOCKING=1" in told
