"""What a checkpoint can't hold is found before the first step; the kinds of what it can survive; compiled models."""

import json

import pytest
from safetensors.torch import load_file
from test_author_state import assert_same, newest, prepare, train, whole_run

KINDS = {
    "SchedulerWithAFunction": """
        def build(self, t):
            t.optimizer = SGD(t.model.parameters(), lr=0.1)
            t.scheduler = Shaped(t.optimizer)
    class Shaped(LRScheduler):
        def __init__(self, optimizer): self.shape = {"of": [lambda epoch: 0.5]}; super().__init__(optimizer)
        def get_lr(self): return [group["lr"] for group in self.optimizer.param_groups]
    """,
    "OpaqueExtraState": """
        def build(self, t): t.model.append(Extra())
    class Extra(nn.Module):
        def forward(self, x): return x
        def get_extra_state(self): return {"held": object()}
        def set_extra_state(self, state): ...
    """,
    "OpaqueOptimizer": """
        def build(self, t): t.helper = Helper()
    class Helper:
        def state_dict(self): return {"rate": object()}
        def load_state_dict(self, state): ...
    """,
    "OpaqueHook": """
        def build(self, t): t.extra_out = lambda: {"array": np.array([object()])}
    """,
    "SparseBuffer": """
        def build(self, t): t.model.register_buffer("graph", torch.eye(3).to_sparse())
    """,
    "Endless": """
        def build(self, t): t.stream = iter(range(10**9))
        def loss(self, t, x, y): return F.cross_entropy(t.model(x), y) * (1 + next(t.stream) / 100)
    """,
    "EndlessDataset": """
        def build(self, t): t.train_loader = DataLoader(GoesOn(), 8)
    class GoesOn(IterableDataset):
        def __init__(self): self.source = self.forever()
        def forever(self):
            while True: yield from zip(X, Y)
        def __iter__(self):
            for _ in range(16): yield next(self.source)
    """,
    "Cache": """
        def build(self, t): t.train_loader = DataLoader(Cached(), 64)
    class Cached(Dataset):
        def __init__(self): self.cache = {}
        def __len__(self): return 1100
        def __getitem__(self, i): return self.cache.setdefault(i, (X[i % 64], Y[i % 64]))
    """,
    "MadeOnTheWay": """
        def build(self, t): t.extra_optimizer = None
        def loss(self, t, x, y):
            if t.learning and t.extra_optimizer is None: t.extra_optimizer = Adam(t.model.parameters(), lr=1e-4)
            return F.cross_entropy(t.model(x), y)
    """,
    "Compiled": """
        def build(self, t):
            t.model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))
            t.optimizer = Adam(t.model.parameters(), lr=1e-2)
            if t.config.note_compiled == "all": t.model = torch.compile(t.model, backend="eager")
            if t.config.note_compiled == "part": t.model[1] = torch.compile(t.model[1], backend="eager")
    """,
}
SCHEDULES = {
    "multistep": "MultiStepLR(o, [1, 3])",
    "sequence": "SequentialLR(o, [LinearLR(o, 0.1, 1, 3), MultiStepLR(o, [1, 3])], [3])",
    "three": "SequentialLR(o, [ConstantLR(o, 0.1, 1), MultiStepLR(o, [1]), ExponentialLR(o, 0.5)], [1, 3])",
    "chained": "ChainedScheduler([MultiStepLR(o, [1]), PolynomialLR(o, 5)])",
    "chained sequence": "ChainedScheduler([SequentialLR(o, [LinearLR(o), MultiStepLR(o, [1])], [2]), StepLR(o, 2)])",
    "table": "LambdaLR(o, Table())",
    "multiplied": "MultiplicativeLR(o, Table())",
    "cosine": "CosineAnnealingLR(o, 4)",
    "restarts": "CosineAnnealingWarmRestarts(o, 2)",
    "cyclic": "CyclicLR(o, 0.01, 0.1, 3, mode='exp_range', gamma=0.99)",
    "cycle": "OneCycleLR(o, 0.1, total_steps=24)",
    "plateau": "ReduceLROnPlateau(o, patience=0)",
    "swa": "torch.optim.swa_utils.SWALR(o, 0.01, 3)",
    "step": "StepLR(o, 2)",
}
REFUSED = {
    "SchedulerWithAFunction": "a checkpoint can't hold the state of self.scheduler: "
    "self.scheduler.shape.of.0 is of type function;",
    "OpaqueExtraState": "a checkpoint can't hold the state of self.model: "
    "self.model.3._extra_state.held is of type object;",
    "OpaqueOptimizer": "a checkpoint can't hold the state of self.helper: self.helper.rate is of type object;",
    "OpaqueHook": "a checkpoint can't hold the state of get_extra_state(): get_extra_state().array is a numpy array of "
    "objects;",
    "SparseBuffer": "a checkpoint can't hold the state of self.model: self.model.graph is a tensor that is sparse_coo;",
}
TOLD = {
    "Endless": "WARNING self.stream is a range_iterator, which a checkpoint can't hold",
    "EndlessDataset": "WARNING self.train_loader.dataset.source is a generator, which a checkpoint can't hold",
    "Cache": "WARNING self.train_loader.dataset.cache changes while training and has more than 1,000 parts, which",
    "MadeOnTheWay": "WARNING self.extra_optimizer is made while training: a resumed run has none to give its state to.",
}


@pytest.fixture(scope="module")
def rehearsed(shared_project):
    schedules = {f"Schedule{number}": f"""
        def build(self, t):
            t.optimizer = o = SGD(t.model.parameters(), lr=0.1)
            t.scheduler = {code}
    """ for number, code in enumerate(SCHEDULES.values())}  # fmt: skip
    table = """
    class Table:
        def __init__(self): self.factors, self.rate = np.linspace(0.5, 1, 5), np.float32(0.3)
        def __call__(self, epoch): return float(self.factors[min(epoch, 4)] * self.rate)
    """
    first = {name: code + table * (number == 0) for number, (name, code) in enumerate(schedules.items())}
    prepare(shared_project, KINDS | first)
    path = shared_project.path / "config/holder_trainer_config.py"
    path.write_text(
        path.read_text() + '    note_compiled: str = ""\n    """What is compiled: all, part or nothing."""\n'
    )
    return shared_project


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_checkpoint_can_t_hold_is_refused_before_the_first_step(kind, rehearsed):
    for words in ((), ("--dry-run",))[: 1 + (kind == "SparseBuffer")]:
        done = rehearsed.run("Holder", f"kind={kind}", *words)
        assert done.returncode == 2, done.stdout + done.stderr
        assert REFUSED[kind] in done.stderr
        assert "get_extra_state and set_extra_state" in done.stderr
        assert "epoch 1/" not in done.stdout


@pytest.mark.parametrize("kind", TOLD)
def test_what_goes_on_unkept_is_told(kind, rehearsed):
    said = train(rehearsed, f"kind={kind}", "epochs=3")
    assert said.count(TOLD[kind]) == 1, said
    assert kind in ("Cache", "MadeOnTheWay") or said.index(TOLD[kind]) < said.index("epoch 1/")


@pytest.mark.parametrize("number", [pytest.param(n, marks=[pytest.mark.slow] * (n not in (1, 5))) for n in range(14)])
def test_every_schedule_of_torch_s_is_resumed_to_the_same_bits(number, rehearsed):
    kind = f"Schedule{number}"
    whole = whole_run(rehearsed, kind)
    train(rehearsed, f"kind={kind}", "epochs=2")
    said = train(rehearsed, f"kind={kind}", "--resume", "epochs=4")
    assert "WARNING" not in said
    assert_same(newest(rehearsed), whole)


@pytest.mark.parametrize(
    ("before", "after"), [("all", ""), ("", "part"), pytest.param("part", "all", marks=pytest.mark.slow)]
)
def test_a_compiled_model_s_files_are_those_of_the_plain_one(before, after, rehearsed):
    train(rehearsed, "kind=Compiled", "epochs=2", f"note_compiled={before}")
    weights = load_file(newest(rehearsed) / "model.safetensors")
    assert {name for name in weights if name.startswith("1.")} == {"1.weight", "1.bias"}
    train(rehearsed, "kind=Compiled", "--resume", "epochs=4", f"note_compiled={after}")
    assert len(json.loads((newest(rehearsed) / "metrics.json").read_text())["history"]["val_loss"]) == 4
