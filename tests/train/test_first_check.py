"""The first batches are tried as the run will have them, through the real command line."""

import json
import textwrap

import pytest

CONFIG = '''"""Settings."""
from dataclasses import dataclass
from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class CaseTrainerConfig(BaseTrainerConfig):
    """Settings."""
'''
TRAINER = '''"""A user's trainer."""
import numpy as np, torch, torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import *
from torch.utils.data import *
from config import ConfigParser
from config.case_trainer_config import CaseTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)); Y = (X[:, 0] > 0).long()
{before}

class CaseTrainer(BaseTrainer):
    """A user's trainer."""
    def __init__(self) -> None:
        self.config = ConfigParser.get(CaseTrainerConfig)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        self.train_loader = DataLoader(TensorDataset(X[:48], Y[:48]), 8, shuffle=True)
        self.val_loader = DataLoader(TensorDataset(X[48:], Y[48:]), 8)
{init}
        if not hasattr(self, "optimizer"): self.optimizer = Adam(self.model.parameters(), lr=1e-2)
        if not hasattr(self, "scheduler"): self.scheduler = ExponentialLR(self.optimizer, 0.9)
        self.init_progress_bar(total=None)
        super().__init__()

{hook}
'''
CE = """
def compute_loss(self, batch):
    x, y = batch
    return F.cross_entropy(self.model(x), y)
"""
# The mean of what each sample is: its number, 0 to 6, so that a batch counted wrong gives another value than 3.
NUMBER = """
def compute_loss(self, batch):
    y = batch[1] if isinstance(batch, (tuple, list)) else batch["y"]
    y = torch.as_tensor(y, dtype=torch.float32)
    self._collect_batch_metrics({"number": y.mean()})
    return y.mean() + 0 * self.model[0].weight.sum()
"""


@pytest.fixture
def user(shared_project):
    """Write a trainer as a user would and run it; returns the process and the history of a run that has left one."""
    config = shared_project.path / "config/case_trainer_config.py"
    if not config.exists():
        config.write_text(CONFIG)
        shared_project.append("config.ini", "\n[CaseTrainer]\nplot_at_end = off\nsaving_share = 1\n")

    def run(before="", init="", hook=CE, words=("epochs=1",)):
        text = TRAINER.format(
            before=textwrap.dedent(before),
            init=textwrap.indent(textwrap.dedent(init).strip(), " " * 8),
            hook=textwrap.indent(textwrap.dedent(hook), " " * 4),
        )
        (shared_project.path / "train/case_trainer.py").write_text(text)
        known = shared_project.runs("Case")
        done = shared_project.run("Case", *words)
        runs = shared_project.runs("Case")
        files = [path / "metrics.json" for path in (runs[-1:] if "--resume" in words else runs[len(known) :])]
        found = [json.loads(path.read_text()) for path in files if path.exists()]
        return done, found[0]["history"] if found else None

    return run


def trained(user, **parts):
    done, history = user(**parts)
    assert done.returncode == 0, done.stderr
    return history


# ---------------------------------------------------------------------------------------------- what the loader gives

LOADERS = {
    "an own batch sampler": ("", "DataLoader(TensorDataset(X, Y), batch_sampler=[[0, 1, 2], [3, 4]])", 2),
    "a sampler of names": (
        """
        class Store(Dataset):
            def __getitem__(self, key): return X[int(key[1:])], Y[int(key[1:])]
        """,
        "DataLoader(Store(), 8, sampler=[f'k{i}' for i in range(40)])",
        5,
    ),
    "a sampler that leaves the first out": (
        """
        class Rows(Dataset):
            def __len__(self): return 64
            def __getitem__(self, i):
                if i == 0: raise OSError("truncated")
                return X[i], Y[i]
        """,
        "DataLoader(Rows(), 9, sampler=SubsetRandomSampler(range(1, 64)))",
        7,
    ),
    "a collate_fn that filters": (
        """
        class Rows(Dataset):
            def __len__(self): return 64
            def __getitem__(self, i): return None if i < 3 else (X[i], Y[i])
        """,
        "DataLoader(Rows(), 8, collate_fn=lambda b: default_collate([s for s in b if s is not None]))",
        8,
    ),
    "a stream without length": (
        """
        class Stream(IterableDataset):
            def __iter__(self): return iter(zip(X, Y))
        """,
        "DataLoader(Stream(), 16)",
        4,
    ),
    "an iterable of one's own": (
        """
        class Own:
            def __len__(self): return 5
            def __iter__(self):
                for i in range(5): yield X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]
        """,
        "Own()",
        5,
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_batch_that_is_tried_is_one_that_the_loader_gives(user, kind):
    before, loader, steps = LOADERS[kind]
    hook = CE + '\ndef after_training(self): print("STEPS", self.record.progress.step)\n'
    done, history = user(before=before, init=f"self.train_loader = {loader}", hook=hook)
    assert done.returncode == 0, done.stderr
    assert f"STEPS {steps}\n" in done.stdout and len(history["train_loss"]) == 1
    done, _ = user(before=before, init=f"self.train_loader = {loader}", hook=hook, words=("--dry-run",))
    assert done.returncode == 0, done.stderr
    assert "first forward pass, train: loss " in done.stdout and "nothing was trained" in done.stdout


def test_nothing_notices_that_it_was_tried(user):
    """Counters, queues, generators, second optimizers, buffers, weights that the hook moves, a loader's own passes."""
    before = """
    class Own:
        passes = 0
        def __init__(self): self.order = list(range(5)); self.random = np.random.default_rng(1)
        def __len__(self): return 5
        def __iter__(self):
            self.passes += 1
            self.random.shuffle(self.order)
            for i in self.order: yield X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]
    """
    init = """
    self.train_loader = Own()
    self.model.insert(1, nn.BatchNorm1d(16))
    self.teacher, self.critic = nn.Linear(8, 2), nn.Linear(8, 1)
    self.critic_optimizer = Adam(self.critic.parameters(), lr=0.1)
    self.calls, self.queue, self.seen = 0, torch.zeros(4), []
    import random
    self.legacy, self.system = np.random.RandomState(1), random.SystemRandom()
    """
    hook = """
    def compute_loss(self, batch):
        x, y = batch
        if self.model.training:
            drawn = self.legacy.random() + 0 * self.system.random()
            if self.record.progress.step == 0 and self.record.progress.epoch == 0:
                first = [float(self.calls), float(self.queue.sum()), float(len(self.seen)),
                         float(len(self.critic_optimizer.state)), float(self.model[1].num_batches_tracked),
                         float(self.train_loader.passes), float(drawn == np.random.RandomState(1).random())]
                self.results["first"] = first
            self.calls += 1; self.queue[0] += 1; self.seen.append(1)
            self.critic_optimizer.zero_grad(); self.critic(x).square().mean().backward(); self.critic_optimizer.step()
            self.teacher.weight.data = self.teacher.weight.data * 0.5
        return F.cross_entropy(self.model(x), y)
    def after_training(self):
        self.results["calls"] = self.calls
        self.results["teacher"] = float(self.teacher.weight.abs().max())
        print("FIRST", self.results["first"], "CALLS", self.calls, "PASSES", self.train_loader.passes,
              "TRACKED", int(self.model[1].num_batches_tracked))
    """
    done, _ = user(before=before, init=init, hook=hook, words=("epochs=2", "device=cpu"))
    assert done.returncode == 0, done.stderr
    # `passes` is 1 in the first step, since the pass under way counts; the draw is the first; all else is untouched.
    assert "FIRST [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0] CALLS 10 PASSES 2" in done.stdout


def test_training_batches_are_tried_in_training_mode_and_validation_batches_without_gradients(user):
    hook = """
    def compute_loss(self, batch):
        if self.model.training:
            _, x, y = batch
            x = x.clone().requires_grad_()
            slope = torch.autograd.grad(self.model(x).sum(), x, create_graph=True)[0]  # a penalty in training only
            return F.cross_entropy(self.model(x), y) + slope.square().mean()
        assert not torch.is_grad_enabled()
        x, y = batch
        return F.cross_entropy(self.model(x), y)
    """
    trained(user, init="self.train_loader = DataLoader(TensorDataset(X, X + 0.1, Y), 8)", hook=hook)


FORCES = """
class Energy(nn.Module):
    def __init__(self): super().__init__(); self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    def forward(self, x):
        with {grad}:
            x = x.detach().requires_grad_(); out = self.net(x)
            return out, torch.autograd.grad(out.sum(), x, create_graph=True)[0]
"""
SLOPE = """
def compute_loss(self, batch):
    x, y = batch
    out, slope = self.model(x)
    return F.cross_entropy(out, y) + slope.square().mean()
"""


@pytest.mark.parametrize("words", [("epochs=1",), ("--check",), ("--profile",), ("--find-batch-size",)])
def test_a_model_may_differentiate_inside_forward(user, words):
    done, _ = user(
        before=FORCES.format(grad="torch.enable_grad()"), init="self.model = Energy()", hook=SLOPE, words=words
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_that_needs_gradients_in_validation_is_told_how(user):
    done, _ = user(before=FORCES.format(grad="torch.autograd.set_detect_anomaly(False)"), init="self.model = Energy()",
                   hook=SLOPE, words=("--dry-run",))  # fmt: skip
    assert done.returncode == 3
    assert "fails with the first batch of val_loader" in done.stderr and "torch.enable_grad()" in done.stderr


# ----------------------------------------------------------------------------------------------- how many samples

BATCHES = {
    "lists of tensors of several lengths": (
        "torch.zeros(1 + 3 * i, 2), float(i)", "([x for x, _ in b], [y for _, y in b])"
    ),
    "images of one number of channels": (
        "torch.zeros(5, 2 + i, 3), float(i)", "([x for x, _ in b], torch.tensor([y for _, y in b]))"
    ),
    "sequences with time first": (
        "torch.zeros(5, 2), float(i)", "(torch.stack([x for x, _ in b], 1), [y for _, y in b])"
    ),
    "a graph of all nodes": (
        "torch.zeros(1 + i, 2), float(i)", "(torch.cat([x for x, _ in b]), torch.tensor([y for _, y in b]))"
    ),
    "a packed sequence": (
        "torch.zeros(1 + i, 2), float(i)",
        "{'x': pack_sequence([x for x, _ in b], False), 'y': torch.tensor([y for _, y in b])}",
    ),
    "arrays": ("np.zeros((1 + i, 2)), float(i)", "([x for x, _ in b], [y for _, y in b])"),
    "a nested tensor": (
        "torch.zeros(1 + i, 2), float(i)",
        "(torch.nested.nested_tensor([x for x, _ in b], layout=torch.jagged), [y for _, y in b])",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_weigh_as_many_samples_as_the_loader_put_into_them(user, kind):
    sample, collate = BATCHES[kind]
    before = f"""
    class Numbers(Dataset):
        def __len__(self): return 7
        def __getitem__(self, i): return {sample}
    """
    init = f"self.train_loader = self.val_loader = DataLoader(Numbers(), 3, collate_fn=lambda b: {collate})"
    history = trained(user, before=before, init=init, hook=NUMBER)
    assert history["val_loss"] == [3.0] and history["train_loss"] == [3.0]
    assert history["val_number"] == [3.0]


def test_an_empty_batch_weighs_nothing(user):
    before = """
    class Boxes(Dataset):
        def __len__(self): return 3
        def __getitem__(self, i): return torch.ones([4, 0, 4][i], 8)
    """
    hook = """
    def compute_loss(self, batch): return (0 * self.model(batch).sum(1) + 1).sum() / max(len(batch), 1)
    """
    init = "self.train_loader = self.val_loader = DataLoader(Boxes(), 1, collate_fn=torch.cat)"
    assert trained(user, before=before, init=init, hook=hook)["val_loss"] == [1.0]


def test_what_is_not_clear_is_told_once_and_can_be_said(user):
    before = """
    class Own:
        def __len__(self): return 2
        def __iter__(self):
            yield {"nodes": torch.zeros(9, 2), "y": torch.tensor([0.0, 1.0, 2.0])}
            yield {"nodes": torch.zeros(2, 2), "y": torch.tensor([3.0, 4.0, 5.0, 6.0])}
    """
    init = "self.train_loader = self.val_loader = Own()"
    done, history = user(before=before, init=init, hook=NUMBER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train_loader: it isn't clear how many samples a batch has") == 1
    assert "(nodes: 9, y: 3); 9 is taken" in done.stdout
    said = NUMBER + "\ndef count_samples(self, batch): return len(batch['y'])\n"
    done, history = user(before=before, init=init, hook=said)
    assert "isn't clear" not in done.stdout
    assert history["val_loss"] == [3.0] and history["val_number"] == [3.0]
    counted = NUMBER.replace("y.mean()})", "y.mean()}, count=len(y)); self._set_loss_count(len(y))")
    done, history = user(before=before, init=init, hook=counted)
    assert "isn't clear" not in done.stdout
    assert history["val_loss"] == [3.0] and history["val_number"] == [3.0]


# --------------------------------------------------------------------------------------- lazy, sparse, and refusals


@pytest.mark.parametrize("average", ["0", "0.9"])
def test_lazy_layers_train_and_resume_to_the_same_bits(user, shared_project, average):
    init = """
    self.model = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    """
    settings = ("epochs=4", f"ema_decay={average}")
    whole = trained(user, init=init, words=settings)
    assert whole["train_loss"][3] < whole["train_loss"][0]
    trained(user, init=init, words=("epochs=2", f"ema_decay={average}"))
    assert trained(user, init=init, words=("--resume", *settings)) == whole


WORDS = """
class Words(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Embedding(8, 4, sparse=True); self.o = nn.Linear(4, 2)
    def forward(self, x): return self.o(self.e(x).mean(1))
"""


@pytest.mark.parametrize("optimizer", ["torch.optim.Adagrad(", "SGD(momentum=0.9, params="])
def test_sparse_gradients_train_as_dense_ones_do_and_resume_to_the_same_bits(user, optimizer):
    loaders = "self.train_loader = self.val_loader = DataLoader(TensorDataset(X.abs().long() % 8, Y), 8)"
    made = f"self.optimizer = {optimizer}self.model.parameters(), lr=0.1)"
    init = f"torch.manual_seed(3); self.model = Words(); {loaders}; {made}"
    words = ("epochs=2", "gradient_clip_value=0.1", "accumulation_steps=2")
    sparse = trained(user, before=WORDS, init=init, words=words)
    dense = trained(user, before=WORDS.replace("sparse=True", "sparse=False"), init=init, words=words)
    assert sparse["val_loss"] == pytest.approx(dense["val_loss"], rel=1e-5)
    assert sparse["val_loss"][1] != sparse["val_loss"][0]
    trained(user, before=WORDS, init=init, words=("epochs=1", *words[1:]))
    assert trained(user, before=WORDS, init=init, words=("--resume", *words)) == sparse


@pytest.mark.parametrize("form", ["to_sparse()", "to_sparse_csr()"])
def test_sparse_batches_and_samples_are_data_as_others(user, form):
    init = f"""
    self.model = nn.Linear(8, 2)
    stacked = lambda b: (torch.stack([x for x, _ in b]).{form}, torch.stack([y for _, y in b]))
    self.train_loader = self.val_loader = DataLoader(TensorDataset(X, Y), 8, collate_fn=stacked)
    """
    hook = CE.replace("self.model(x)", "torch.sparse.mm(x, self.model.weight.T)")
    assert len(trained(user, init=init, hook=hook)["val_loss"]) == 1
    before = """
    class Samples(Dataset):
        def __len__(self): return 64
        def __getitem__(self, i): return X[i].to_sparse(), Y[i]
    """
    dense = "lambda b: (torch.stack([x.to_dense() for x, _ in b]), torch.stack([y for _, y in b]))"
    trained(user, before=before, init=f"self.train_loader = DataLoader(Samples(), 8, collate_fn={dense})")


SINGLE = "a batch of one sample, which train_loader gives (49 samples, batch_size 8)"
RATE = "self.optimizer = SGD(self.model.parameters(), lr=0.1)"
NORMED = "self.model.insert(1, nn.BatchNorm1d(16))"
REFUSED = {
    "a scheduler that is a list": (
        f"{RATE}; self.scheduler = [ExponentialLR(self.optimizer, 0.9)]", CE, 2,
        "self.scheduler is a list, which has no step()",
    ),
    "an optimizer with a closure": (
        "self.optimizer = torch.optim.LBFGS(self.model.parameters())", CE, 2, "LBFGS.step needs a closure",
    ),
    "a removed argument": (
        f"{RATE}; self.scheduler = ReduceLROnPlateau(self.optimizer, verbose=True)", CE, 2,
        "ReduceLROnPlateau has no argument 'verbose' in torch",
    ),
    "a misspelt argument": (RATE.replace("lr=0.1", "lr=0.1, momentun=0.9"), CE, 2, "did you mean 'momentum'?"),
    "a last batch of one": (
        f"{NORMED}; self.train_loader = DataLoader(TensorDataset(X[:49], Y[:49]), 8)", CE, 3, SINGLE,
    ),
    "a last batch of one of a TensorLoader": (
        f"{NORMED}; self.train_loader = self.val_loader = TensorLoader({{'x': X[:49], 'y': Y[:49]}}, 8)",
        CE.replace("= batch", "= batch['x'], batch['y']"), 3, SINGLE,
    ),
    "workers that can't be given it": (
        "data = self.val_loader.dataset; data.transform = lambda x: x\n"
        "self.train_loader = DataLoader(data, 8, num_workers=1, multiprocessing_context='spawn')", CE, 3,
        "can't pickle train_loader.dataset.transform, the function",
    ),
    "a hook without loss": ("", CE.replace("return F", "F"), 2, "To skip a batch, call self._set_loss_count(0)"),
    "a layer that is never reached": (
        "self.model.extra = nn.LazyLinear(3); layers = self.model[:3]; self.model.forward = lambda x: layers(x)", CE, 2,
        "the size of the lazy layer `extra` is not known",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_not_train_is_refused_before_the_first_step(user, kind):
    init, hook, code, text = REFUSED[kind]
    for words in (("--dry-run",), ("epochs=1",)):
        done, history = user(init=init, hook=hook, words=words)
        assert done.returncode == code, done.stdout + done.stderr
        assert text in done.stderr and "Traceback" not in done.stderr
        assert history is None
