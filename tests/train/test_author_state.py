"""What an author's own objects change in a run comes back with a resume, to the same bits; what can't is told."""

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file

CONFIG = '''"""Settings of a trainer that holds more than a model."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class HolderTrainerConfig(BaseTrainerConfig):
    """Settings."""

    kind: str = ""
    """Which state the trainer holds."""
'''
TRAINER = '''"""Holds more than a model."""

import random
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import *
from torch.utils.data import *

from config import ConfigParser
from config.holder_trainer_config import HolderTrainerConfig
from data.loaders import make_loader
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
from train.callbacks import Callback
from train.schedulers import warmup_cosine

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


class Kind:
    """One kind of state: what its trainer has more, and how the loss depends on it."""

    def build(self, trainer): ...

    def loss(self, trainer, x, y):
        return F.cross_entropy(trainer.model(x), y)


{kinds}


class HolderTrainer(BaseTrainer):
    """Holds more than a model."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(HolderTrainerConfig)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        self.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, shuffle=True)
        self.val_loader = DataLoader(TensorDataset(X[48:], Y[48:]), 8)
        self.optimizer = None
        kind = globals()[self.config.kind]()
        kind.build(self)
        self.optimizer = self.optimizer or Adam(self.model.parameters(), lr=1e-2)
        if not hasattr(self, "scheduler"):
            self.scheduler = ExponentialLR(self.optimizer, 0.9)
        self.init_progress_bar(total=100, desc="Training")
        super().__init__()
        self._loss = kind.loss

    def compute_loss(self, batch):
        return self._loss(self, *batch)

    @property
    def learning(self):
        """Whether a training step is done."""
        return self.model.training and torch.is_grad_enabled()

    def get_extra_state(self):
        return getattr(self, "extra_out", dict)()

    def set_extra_state(self, state):
        self.extra_in(state)
'''
KINDS = {
    "SecondOptimizer": """
        def build(self, t):
            t.critic = nn.Linear(8, 1)
            t.opt_d = Adam(t.critic.parameters(), lr=1e-2)
            t.schedule_d = StepLR(t.opt_d, 3, 0.5)
        def loss(self, t, x, y):
            if t.learning:
                d = (t.critic(x)[:, 0] - y).square().mean()
                t.opt_d.zero_grad(); d.backward(); t.opt_d.step(); t.schedule_d.step()
            return F.cross_entropy(t.model(x), y) * t.critic(x).detach().abs().mean()
    """,
    "OptimizersInADict": """
        def build(self, t):
            t.nets = {"critic": nn.Linear(8, 1), "others": [nn.Linear(8, 1), nn.BatchNorm1d(8)]}
            t.optimizers = {"d": Adam(t.nets["critic"].parameters(), lr=1e-2)}
            t.schedules = [ExponentialLR(t.optimizers["d"], 0.95)]
        def loss(self, t, x, y):
            with torch.no_grad(): x = t.nets["others"][1](x)
            if t.learning:
                d = (t.nets["critic"](x)[:, 0] - y).square().mean()
                t.optimizers["d"].zero_grad(); d.backward(); t.optimizers["d"].step(); t.schedules[0].step()
            return F.cross_entropy(t.model(x), y) * t.nets["critic"](x).detach().abs().mean()
    """,
    "LoaderWithAMethodOfTheTrainer": """
        def build(self, t):
            import types
            t.scale = 1.0
            def scaled(trainer, samples):
                x, y = torch.utils.data.default_collate(samples)
                return x * trainer.scale, y
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, collate_fn=types.MethodType(scaled, t))
        def loss(self, t, x, y):
            if t.learning: t.scale *= 0.98
            return F.cross_entropy(t.model(x), y)
    """,
    "LoaderWithAMethodOfAnOwner": """
        def build(self, t):
            t.optimizer = Adam(t.model.parameters(), lr=1e-2)
            t.scheduler = ExponentialLR(t.optimizer, 0.9)
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, collate_fn=Owner(t).scaled)
        def loss(self, t, x, y): return F.cross_entropy(t.model(x), y)
    class Owner:
        def __init__(self, t):
            self.config, self.model, self.optimizer, self.scheduler = t.config, t.model, t.optimizer, t.scheduler
            self.scale = 1.0
        def scaled(self, samples):
            x, y = torch.utils.data.default_collate(samples)
            self.scale *= 0.98
            return x * self.scale + self.model[0].weight.detach().mean(), y
    """,
    "Queue": """
        def build(self, t):
            t.queue, t.at = torch.zeros(32, 8), 0
        def loss(self, t, x, y):
            out = F.cross_entropy(t.model(x), y) * (1 + (x @ t.queue.T).square().mean())
            if t.learning:
                t.queue[t.at : t.at + 8] = x
                t.at = (t.at + 8) % 32
            return out
    """,
    "GrowingLists": """
        def build(self, t):
            t.memory, t.recent, t.counts, t.by_class = [], deque(maxlen=3), Counter(), defaultdict(list)
            t.order = OrderedDict(a=1.0)
        def loss(self, t, x, y):
            known = sum(t.recent) / 3 + len(t.memory) / 10 + t.counts["x"] / 9 + len(t.by_class["1"]) / 7
            if t.learning:
                t.memory.append(x.mean()); t.recent.append(float(x.max())); t.counts["x"] += 1
                t.by_class["1"].append(1); t.order["a"] *= 1.1
            return F.cross_entropy(t.model(x), y) * (1 + known * t.order["a"])
    """,
    "Annealed": """
        def build(self, t):
            t.temperature, t.table, t.phase = 2.0, np.ones(4), Phase.WARM
            t.settings = {"noise": {"std": 1.0}}
        def loss(self, t, x, y):
            if t.learning:
                t.temperature *= 0.97; t.table *= 1.01; t.settings["noise"]["std"] *= 0.9
                t.phase = Phase.MAIN if t.record.progress.epoch else t.phase
            bonus = 1.0 if t.phase is Phase.MAIN else 2.0
            return bonus * F.cross_entropy(t.model(x) / t.temperature * t.table.sum(), y) * t.settings["noise"]["std"]
    class Phase(Enum):
        WARM = 1
        MAIN = 2
    """,
    "NumpyInADataset": """
        def build(self, t):
            t.train_loader = DataLoader(Noisy(), 8, shuffle=True)
    class Noisy(Dataset):
        def __init__(self):
            self.rng, self.old, self.plain = np.random.default_rng(3), np.random.RandomState(4), random.Random(5)
        def __len__(self): return 48
        def __getitem__(self, i):
            noise = self.rng.normal() + self.old.rand() + self.plain.random()
            return X[i] + float(noise), Y[i]
    """,
    "NumpyInASampler": """
        def build(self, t):
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, sampler=Order())
    class Order(Sampler):
        def __init__(self): self.rng = np.random.default_rng(3)
        def __len__(self): return 48
        def __iter__(self): return iter(self.rng.permutation(48).tolist())
    """,
    "GeneratorsOfTheTrainer": """
        def build(self, t):
            t.rngs = [np.random.default_rng(1), random.Random(2)]
            t.noise = torch.Generator().manual_seed(3)
        def loss(self, t, x, y):
            if t.learning:
                x = x + torch.randn(x.shape, generator=t.noise) + float(t.rngs[0].normal()) + t.rngs[1].random()
            return F.cross_entropy(t.model(x), y)
    """,
    "GeneratorOfACollator": """
        def build(self, t):
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, shuffle=True, collate_fn=Mixer())
    class Mixer:
        def __init__(self): self.rng, self.calls = np.random.default_rng(3), 0
        def __call__(self, samples):
            self.calls += 1
            x, y = default_collate(samples)
            return x * float(self.rng.uniform(0.5, 1.5)) + self.calls / 10, y
    """,
    "CurriculumOfADataset": """
        def build(self, t):
            t.data = Curriculum()
            t.train_loader = DataLoader(Subset(t.data, range(48)), 8, shuffle=True, num_workers=1)
        def loss(self, t, x, y):
            if t.learning:
                t.data.difficulty += 0.125
            return F.cross_entropy(t.model(x), y)
    class Curriculum(Dataset):
        difficulty = 0.0
        def __init__(self): self.difficulty = 1.0
        def __len__(self): return 48
        def __getitem__(self, i): return X[i] * self.difficulty, Y[i]
    """,
    "StatefulSampler": """
        def build(self, t):
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, sampler=Passes())
    class Passes(Sampler):
        def __init__(self): self._pass = 0
        def __len__(self): return 48
        def __iter__(self):
            yield from torch.randperm(48, generator=torch.Generator().manual_seed(self._pass)).tolist()
            self._pass += 1
        def state_dict(self): return {"passes": self._pass}
        def load_state_dict(self, state): self._pass = state["passes"]
    """,
    "StreamWithAPlace": """
        def build(self, t):
            t.train_loader = DataLoader(Stream(), 8)
    class Stream(IterableDataset):
        def __init__(self): self.at = 0
        def __iter__(self):
            for _ in range(48):
                self.at += 1
                yield X[(self.at * 7) % 64], Y[(self.at * 7) % 64]
    """,
    "Thaw": """
        def build(self, t): t.model[0].requires_grad_(False)
        def loss(self, t, x, y):
            if t.learning and t.record.progress.epoch == 1:
                t.model[0].requires_grad_(True)
            return F.cross_entropy(t.model(x), y)
    """,
    "ThawWithAGroup": """
        def build(self, t): t.optimizer = Adam(t.model[2].parameters(), lr=1e-2)
        def loss(self, t, x, y):
            if t.learning and t.record.progress.epoch == 1 and len(t.optimizer.param_groups) == 1:
                t.optimizer.add_param_group({"params": t.model[0].parameters(), "lr": 1e-3, "initial_lr": 1e-3})
            return F.cross_entropy(t.model(x), y)
    """,
    "TeacherInADict": """
        def build(self, t):
            from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
            t.teachers = {"ema": AveragedModel(t.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))}
        def loss(self, t, x, y):
            if t.learning:
                t.teachers["ema"].update_parameters(t.model)
            with torch.no_grad():
                soft = t.teachers["ema"](x).softmax(1)
            return F.cross_entropy(t.model(x), y) + F.cross_entropy(t.model(x), soft)
    """,
    "ShadowList": """
        def build(self, t):
            t.shadow = [p.detach().clone() for p in t.model.parameters()]
            t.names = list(t.model.parameters())
        def loss(self, t, x, y):
            if t.learning:
                torch._foreach_lerp_(t.shadow, [p.detach() for p in t.model.parameters()], 0.1)
            return F.cross_entropy(t.model(x), y) * (1 + t.shadow[0].abs().mean())
    """,
    "ModulesOwnNumbers": """
        def build(self, t):
            t.model = nn.Sequential(nn.Linear(8, 16), Gate(), nn.Dropout(0.5), nn.Linear(16, 2))
        def loss(self, t, x, y):
            if t.learning:
                t.model[2].p *= 0.95
            return F.cross_entropy(t.model(x), y)
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(16), persistent=False)
            self.tau, self.bank = 1.0, []
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                self.scale += 0.01; self.tau *= 0.99; self.bank = [*self.bank[-2:], x.detach().mean()]
            return x * self.scale * self.tau + sum(self.bank)
    """,
    "GrowingBuffer": """
        def build(self, t):
            t.model = Bank()
        def loss(self, t, x, y):
            return F.cross_entropy(t.model(x), y) + (0 if t.model.training else t.record.progress.epoch)
    class Bank(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(8, 2)
            self.register_buffer("bank", torch.zeros(0, 8)); self.register_buffer("late", None)
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                self.bank = torch.cat([self.bank, x]); self.late = x.mean(0)
            late = 0 if self.late is None else self.late.sum()
            return self.net(x) + late + (self.bank.mean() if len(self.bank) else 0)
    """,
    "ExtraStateOfAModule": """
        def build(self, t):
            t.model.append(Seen())
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.of = {"seen": 0, "table": np.zeros(2), "tensor": torch.zeros(1, dtype=torch.complex128), "set": {1}}
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                self.of["seen"] += len(x); self.of["table"] += 0.1; self.of["tensor"] += 0.1j
            return x * (1 + self.of["seen"] / 100 + float(self.of["table"].sum()) + self.of["tensor"].abs().float())
        def get_extra_state(self): return self.of
        def set_extra_state(self, state):
            assert type(state["table"]) is np.ndarray and type(state["set"]) is set
            self.of = state
    """,
    "ComplexParameter": """
        def build(self, t):
            t.model = Complex()
    class Complex(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.randn(8, 2, dtype=torch.complex128))
        def forward(self, x): return (x.to(torch.complex128) @ self.w).abs().float()
    """,
    "TrainerHooks": """
        def build(self, t):
            held = Opaque()
            t.extra_out = lambda: {"count": held.count, "table": np.arange(held.count), "kept": torch.ones(1)}
            def extra_in(state): held.count = state["count"]; assert len(state["table"]) == held.count
            t.extra_in = extra_in
            self.held = held
        def loss(self, t, x, y):
            if t.learning: self.held.count += 1
            return F.cross_entropy(t.model(x), y) * (1 + self.held.count / 10)
    class Opaque:
        __slots__ = ("count",)
        def __init__(self): self.count = 0
    """,
    "LooseParameter": """
        def build(self, t):
            t.log_scale = nn.Parameter(torch.zeros(()))
            t.optimizer = Adam([*t.model.parameters(), t.log_scale], lr=1e-2)
        def loss(self, t, x, y): return F.cross_entropy(t.model(x) * t.log_scale.exp(), y)
    """,
    "ObjectOfItsOwn": """
        def build(self, t):
            t.controller = Controller()
        def loss(self, t, x, y):
            loss = F.cross_entropy(t.model(x), y)
            if t.learning: t.controller.note(loss.detach())
            return loss * t.controller.weight
    class Controller:
        def __init__(self): self.weight, self.inner = 1.0, Inner()
        def note(self, loss):
            self.inner.average = 0.9 * self.inner.average + 0.1 * loss
            self.weight = 1.0 + float(self.inner.rng.random()) * float(self.inner.average)
    class Inner:
        def __init__(self): self.average, self.rng = torch.zeros(()), np.random.default_rng(0)
    """,
    "AnnealedSetting": """
        def build(self, t): t.config.learning_rate = 1.0
        def loss(self, t, x, y):
            if t.learning: t.config.learning_rate *= 0.9
            return F.cross_entropy(t.model(x), y) * t.config.learning_rate
    """,
    "ReplayBuffer": """
        def build(self, t): t.replay, t.batches = deque(maxlen=5), {"x": np.zeros((4, 8), np.float32)}
        def loss(self, t, x, y):
            out = F.cross_entropy(t.model(x), y)
            for old, label in t.replay: out = out + F.cross_entropy(t.model(old), label) / 9
            out = out * (1 + float(t.batches["x"].sum()) ** 2 / 100)
            if t.learning: t.replay.append((x, y)); t.batches["x"][len(t.replay) % 4] = x[0].numpy()
            return out
    """,
    "WeightsOfASampler": """
        def build(self, t):
            t.sampler = WeightedRandomSampler(torch.ones(48), 48, generator=torch.Generator().manual_seed(2))
            t.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, sampler=t.sampler)
        def loss(self, t, x, y):
            if t.learning: t.sampler.weights[: len(x)] *= 1.5
            return F.cross_entropy(t.model(x), y)
    """,
    "ModesOfAModule": """
        def build(self, t): t.head = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
        def loss(self, t, x, y):
            if t.learning and t.record.progress.epoch == 1: t.head.eval()
            return F.cross_entropy(t.head(t.model(x)), y)
    """,
    "TwoWorkersWithGenerators": """
        def build(self, t): t.train_loader = DataLoader(Drawn(), 8, shuffle=True, num_workers=2)
    class Drawn(Dataset):
        def __init__(self): self.rng, self.noise = np.random.default_rng(1), torch.Generator().manual_seed(1)
        def __len__(self): return 48
        def __getitem__(self, i):
            return X[i] * float(self.rng.uniform()) + torch.randn(8, generator=self.noise), Y[i]
    """,
    "GanWithEverything": """
        def build(self, t):
            t.generator, t.critic = nn.Linear(4, 8), nn.Linear(8, 1)
            t.opts = {"g": Adam(t.generator.parameters(), lr=1e-3), "d": SGD(t.critic.parameters(), 1e-2, 0.9)}
            t.schedules = {name: CosineAnnealingLR(opt, 30) for name, opt in t.opts.items()}
            t.scaler, t.ratio = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3), 1
        def loss(self, t, x, y):
            if t.learning:
                for name in ["d"] * t.ratio + ["g"]:
                    fake = t.generator(torch.randn(8, 4))
                    loss = t.critic(fake).mean() * (1 if name == "d" else -1) + (t.critic(x).square().mean())
                    t.opts[name].zero_grad(); t.scaler.scale(loss).backward()
                    t.scaler.step(t.opts[name]); t.scaler.update(); t.schedules[name].step()
                t.ratio = 1 + t.record.progress.epoch % 2
            return F.cross_entropy(t.model(x), y) * (1 + t.critic(x).detach().abs().mean() + t.scaler.get_scale() / 99)
    """,
    "ThawedByAList": """
        def build(self, t):
            t.order, t.stage = [0, 2], 0
            t.model.requires_grad_(False); t.model[2].requires_grad_(True)
            t.optimizer = SGD([{"params": [p], "lr": 0.1} for p in t.model.parameters()], lr=0.1, momentum=0.9)
        def loss(self, t, x, y):
            if t.learning and t.record.progress.epoch >= 1: t.model[t.order[t.stage]].requires_grad_(True)
            return F.cross_entropy(t.model(x), y)
    """,
    "MetricOfItsOwn": """
        def build(self, t): t.metric = Streaming()
        def loss(self, t, x, y):
            if t.learning: t.metric.update(x)
            return F.cross_entropy(t.model(x), y) * (1 + t.metric.compute())
    class Streaming:
        def __init__(self): self.total, self.count = torch.zeros(()), 0
        def update(self, x): self.total = self.total + x.square().mean(); self.count += 1
        def compute(self): return self.total / max(self.count, 1)
        def state_dict(self): return {"total": self.total, "count": self.count}
        def load_state_dict(self, state): self.total, self.count = state["total"], state["count"]
    """,
    "MadeLoader": """
        def build(self, t):
            t.train_loader = make_loader(Augmented(), 8, seed=1, num_workers=0)
    class Augmented(Dataset):
        def __init__(self): self.rng, self.reads = np.random.default_rng(3), 0
        def __len__(self): return 48
        def __getitem__(self, i):
            self.reads += 1
            return X[i] * float(self.rng.uniform()) + self.reads / 100, Y[i]
    """,
}
QUICK = ("SecondOptimizer", "GrowingBuffer", "ThawWithAGroup", "LoaderWithAMethodOfAnOwner")


def prepare(project, kinds: dict[str, str] = KINDS) -> None:
    """Write the trainer as a user would."""
    classes = []
    for name, code in kinds.items():
        body, _, rest = code.partition("\n    class ")
        classes.append(f"class {name}(Kind):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
        classes += [textwrap.dedent(f"    class {rest}")] if rest else []
    (project.path / "config/holder_trainer_config.py").write_text(CONFIG)
    (project.path / "train/holder_trainer.py").write_text(TRAINER.replace("{kinds}", "\n\n".join(classes)))
    project.append("config.ini", "\n[HolderTrainer]\nplot_at_end = off\nepochs = 4\n")


@pytest.fixture(scope="module")
def holders(shared_project):
    prepare(shared_project)
    return shared_project


def train(project, *words: str) -> str:
    done = project.run("Holder", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def newest(project) -> Path:
    return project.runs("Holder")[-1]


def whole_run(project, kind: str, known: dict[tuple, Path] = {}) -> Path:  # noqa: B006 - runs once for all tests
    """Return a run that nobody interrupts."""
    if (project.path, kind) not in known:
        train(project, f"kind={kind}")
        known[project.path, kind] = newest(project)
    return known[project.path, kind]


def history(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())["history"]


def assert_same(run: Path, whole: Path) -> None:
    assert history(run) == history(whole)
    for file in ("model.safetensors", "checkpoints/epoch-00004/weights.safetensors"):
        one, other = (load_file(folder / file) for folder in (run, whole))
        assert one.keys() == other.keys()
        assert [name for name in one if one[name].numpy().tobytes() != other[name].numpy().tobytes()] == []


@pytest.mark.parametrize("inside", [False, True], ids=["between epochs", "inside an epoch"])
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in KINDS])
def test_a_resumed_run_gives_the_bits_of_one_that_was_never_interrupted(kind, inside, holders):
    whole = whole_run(holders, kind)
    train(holders, f"kind={kind}", "epochs=2", "checkpoint_every_n_steps=2", "keep_last_checkpoints=99")
    part = newest(holders)
    for later in sorted((part / "checkpoints").glob("epoch-0000*"))[-2 if inside else len(KINDS) :]:
        shutil.rmtree(later)
    told = train(holders, f"kind={kind}", "--resume", "epochs=4")
    assert ("and 4 steps from" in told) == inside
    assert "WARNING" not in told, told
    assert_same(part, whole)
