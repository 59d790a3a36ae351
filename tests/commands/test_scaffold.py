"""`--new`: what it writes trains, passes its own test and the project's checks; what it refuses leaves nothing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from warm_python import run_python

MODELS = "model.small_models"
ISSUE = "model.feature_fusion:FeatureFusionModel"
RANKER = "model.similarity_transformer:SimilarityTransformer"
LONG = "ClassifiesSmallImagesByAConvolutionalNetworkCNN"  # whose lines must be wrapped
ADAM, SGD, ADAMW = ["Adam(", "ReduceLROnPlateau("], ["SGD(", "momentum=0.9", "StepLR("], ["AdamW(", "warmup_cosine("]
ADVICE = {"autoencoder": ADAM, "ranking": [*ADAM, "list_net("], "transformer": ADAMW, "classification": SGD}
# Name, model, kind of batch, task, what the trainer's file must hold beside the optimizer.
CASES = [
    *(
        (f"Fusion{batch.title()}{task.title()}", ISSUE, batch, task, [])
        for batch in ("tensor", "dict", "dataclass")
        for task in ADVICE
    ),
    ("FeatureFusionTrainer", ISSUE, "dict", "ranking", []),
    ("TinyEncoderTrainer", "elsewhere:SmallAutoEncoder", "tensor", "autoencoder", ["shape = (config.input_dim,)"]),
    (LONG, f"{MODELS}:SmallCnn", "dict", "classification", ["_HEIGHT = 16", "% config.num_classes"]),
    (
        "TinyRanker", f"{MODELS}:SmallRanker", "dict", "ranking",
        ["(B, length, dataset_dim), float32", "(_LENGTH, config.dataset_dim)", "(_ITEMS, config.model_dim)"],
    ),
    ("TinySeries", f"{MODELS}:SmallTransformer", "dataclass", "transformer", ["_SAMPLES, 1, config.d_model"]),
    ("Words", f"{MODELS}:SmallLanguageModel", "tensor", "transformer", ["(_LENGTH + 1)) % config.vocabulary"]),
    ("Denoise", f"{MODELS}:SmallDenoiser", "dataclass", "autoencoder", ["label: (B,), int64 below classes"]),
    ("Bundle", f"{MODELS}:Bundled", "tensor", "autoencoder", ["widths = Widths(", "widths=widths)"]),
    ("Similar", RANKER, "dict", "ranking", ["shape = TransformerShape(", "_ITEMS, config.pair_dim)", "pair_features="]),
    ("SimilarData", RANKER, "dataclass", "ranking", ["pair_features=fields.pair_features"]),
    ("Masked", f"{MODELS}:MaskedRanker", "dict", "ranking", ["there = ~key_padding_mask", "bool, True for padding"]),
    ("Hiding", f"{MODELS}:HidingRanker", "dataclass", "ranking", ["there = ~fields.mask", "bool, True for padding"]),
    ("MaskedText", f"{MODELS}:MaskedText", "dict", "classification", ["mask: (B, length), float32, 0.0 for padding"]),
    ("Lazy", f"{MODELS}:LazyClassifier", "tensor", "classification", ["self.model.eval()(train_data[:1][:, :-1])"]),
    ("LazyDict", f"{MODELS}:LazyClassifier", "dict", "classification", ['self.model.eval()(train_data["x"][:1])']),
    ("Keys", f"{MODELS}:SmallAutoEncoder", "dataclass", "autoencoder", []),
    ("Odd", f"{MODELS}:OddWidth", "tensor", "autoencoder", ["_WIDTH = 77"]),
    ("Shapes", f"{MODELS}:SmallRanker", "dict", "ranking", ["_LENGTH = 4", "_ITEMS = 9"]),
]  # fmt: skip
INPUTS = {"Keys": ["--input", "24"], "Odd": ["--input", "77"], "Shapes": ["--input", "4x20,9x5"]}
NAMES = [case[0] for case in CASES]
_FALLS = 3  # epochs


@pytest.fixture(scope="module")
def bare_project(users_project):
    """The project as users have it, with some models."""
    target = users_project.path
    models = target / "tests" / "samples" / "scaffold" / "small_models.py"
    shutil.copy(models, target / "model" / "small_models.py")
    shutil.copy(models, target / "elsewhere.py")
    shutil.copy(target / "tests/samples/model/feature_fusion_model.py", target / "model" / "feature_fusion.py")
    (target / "run_all.py").write_text(RUN_ALL)
    (target / "model" / "failing.py").write_text("import torch\n\nHALF = 1 / 0\n")
    (target / "model" / "misspelt.py").write_text("def f(:\n")
    (target / "model" / "lacking.py").write_text("import there_is_no_such_module\n")
    return users_project


def new(project: Any, name: str, model: str, batch: str, task: str, *more: str):
    """Run `--new` in a new process."""
    return project.run("--new", name, "--model", model, "--batch", batch, "--task", task, *more)


def tree(project: Any) -> dict[str, bytes]:
    """Every file of the project's own folders with its content."""
    return {
        str(path.relative_to(project.path)): path.read_bytes() if path.is_file() else b""
        for path in sorted(project.path.rglob("*"))
        if "__pycache__" not in path.parts and "artifacts" not in path.parts and ".ruff_cache" not in path.parts
    }


def check(project: Any, *words: str) -> None:
    """Run a Python tool in the project; it must succeed."""
    done = run_python(["-m", *words], project.path, timeout=1800)  # 85 s alone; a limit is for what hangs
    assert done.returncode == 0, done.stdout + done.stderr


def run_tests(project: Any, *files: str) -> None:
    """Run tests in the project; they must pass."""
    # In a folder of their own: pytest would clear away those of earlier sessions, which takes minutes where many are.
    check(project, "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(project.path / "temporary"), *files)


# One process for many command lines: a start costs seconds. Each line of the output is [exit code, stderr, stdout].
RUN_ALL = """
import contextlib, io, json, sys
from commands.command_line import main

for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([code, err.getvalue(), out.getvalue()]))
"""


def run_all(project: Any, lines: list[list[str]]) -> list[tuple[int, str, str]]:
    """What the command line says to each of several lines of words."""
    done = project.run(json.dumps(lines), script="run_all.py")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.fixture(scope="module")
def made(bare_project) -> dict[str, tuple[int, str, str]]:
    """What `--new` says to each of CASES; it may change nothing but what it says."""
    lines = [
        ["--new", name, "--model", model, "--batch", batch, "--task", task, *INPUTS.get(name, [])]
        for name, model, batch, task, _ in CASES
    ]
    before = tree(bare_project)
    told = dict(zip(NAMES, run_all(bare_project, lines), strict=True))
    after = tree(bare_project)
    changed = {path for path in after if after[path] != before.get(path) and Path(path).suffix}
    assert changed == {"config.ini", *(path for name in NAMES for path in files_of(name))}
    assert after["config.ini"].startswith(before["config.ini"])  # the sections are at the end, the rest as it was
    return told


@pytest.fixture(scope="module")
def trained(bare_project, made) -> dict[str, tuple[int, str, str]]:
    """What training each of them says."""
    lines = [[name.removesuffix("Trainer"), f"epochs={_FALLS}", "plot_at_end=off"] for name in NAMES]
    return dict(zip(NAMES, run_all(bare_project, lines), strict=True))


def files_of(name: str) -> list[str]:
    """The files that `--new` writes for a trainer of that name."""
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.removesuffix("Trainer")).lower()
    return [f"config/{stem}_trainer_config.py", f"train/{stem}_trainer.py", f"tests/train/test_{stem}_trainer.py"]


@pytest.mark.parametrize(("name", "model", "batch", "task", "texts"), CASES, ids=NAMES)
def test_what_is_written_suits_the_task_and_trains(bare_project, made, trained, name, model, batch, task, texts):
    code, error, output = made[name]
    assert code == 0, error
    written = files_of(name)
    assert [line.strip() for line in output.splitlines() if line.strip() in written] == written
    source = (bare_project.path / written[1]).read_text()
    assert ("def compute_loss" in source) == (batch == "tensor") != ("def _forward_batch" in source)
    kind = {"tensor": "torch.Tensor", "dict": "dict[str, torch.Tensor]"}
    assert f"(self, batch: {kind.get(batch, name.removesuffix('Trainer') + 'Batch')}) -> torch.Tensor:" in source
    wanted = [*ADVICE[task], *texts, "def _data(", "REPLACE THIS", "Yours go here"]
    assert [text for text in wanted if text not in source] == []
    code, error, _ = trained[name]
    assert code == 0, error
    metrics = bare_project.runs(name.removesuffix("Trainer"))[-1] / "metrics.json"
    losses = json.loads(metrics.read_text())["history"]["train_loss"]
    assert len(losses) == _FALLS and losses[-1] < losses[0]


def test_what_is_written_passes_the_projects_checks(bare_project, made):
    written = [path for name in NAMES for path in files_of(name)]
    check(bare_project, "ruff", "check", *written)
    check(bare_project, "ruff", "format", "--check", *written)


def test_a_written_test_passes(bare_project, made):
    # A sample trainer of this project's tests has the same name; in the copies of those it takes the place.
    other = bare_project.path / "tests" / "train" / "test_of_a_sample.py"
    other.write_text("def test_dry(project):\n    assert project.run('FeatureFusion', '--dry-run').returncode == 0\n")
    written = files_of("FeatureFusion")[2]
    run_tests(bare_project, written, str(other))
    other.unlink()


@pytest.mark.slow
def test_all_written_tests_pass(bare_project, made):
    run_tests(bare_project, *(files_of(name)[2] for name in NAMES))


def test_a_size_that_is_a_setting_may_be_changed(bare_project, made):
    words = {"TinyRanker": "model_dim=7", "Words": "vocabulary=23", LONG: "num_classes=5", "Similar": "pair_dim=0"}
    words |= {"Bundle": "hidden=5", "Keys": "activation=tanh"}
    lines = [[name, setting, "--dry-run"] for name, setting in words.items()]
    assert [(code, error) for code, error, _ in run_all(bare_project, lines)] == [(0, "")] * len(words)


REFUSALS = [
    (["tinyThing", "SmallCnn", "dict", "classification"], ["--new tinyThing", "CamelCase"]),
    (["T" + 60 * "x", "SmallCnn", "dict", "classification"], ["has 68 characters; at most 60"]),
    (["Trainer", "SmallCnn", "dict", "classification"], ["must say what is trained"]),
    (
        ["ModelZoo", "SmallCnn", "dict", "classification"],
        ["there is ModelZooTrainer in train/model_zoo_trainer.py:"],
    ),
    (
        ["T", "model.smal_models:A", "dict", "ranking"],
        ["no module model.smal_models; did you mean model.small_models"],
    ),
    (["T", "SmalCnn", "dict", "ranking"], ["module model.small_models has no SmalCnn; did you mean SmallCnn"]),
    (["T", "Literal", "dict", "ranking"], ["Literal is not a subclass of torch.nn.Module"]),
    (["T", "model/x.py", "dict", "ranking"], ["must be package.module:ClassName"]),
    (["T", "model.failing:A", "dict", "ranking"], ["import fails at model/failing.py:3: ZeroDivisionError"]),
    (["T", "model.misspelt:A", "dict", "ranking"], ["import fails at model/misspelt.py:1: SyntaxError"]),
    (["T", "model.lacking:A", "dict", "ranking"], ["fails at model/lacking.py:1", "'there_is_no_such_module'"]),
    (["T", "NeedsALayer", "tensor", "autoencoder"], ["NeedsALayer.__init__(layer:", "no default, and no type"]),
    (
        ["T", "SmallRanker", "tensor", "transformer"],
        ["needs 2 inputs (dataset_tokens, model_tokens)", "--batch dict"],
    ),
    (["T", "SmallRanker", "tensor", "ranking"], ["needs 2 inputs", "Use --batch dict or --batch dataclass"]),
    (
        ["T", "SmallCnn", "tensor", "classification"],
        ["--batch tensor has no place for what --task classification learns from beside a sample (B, 3, 16, 16): use"],
    ),
    (
        ["T", "NeedsLayers", "tensor", "autoencoder"],
        ["__init__(layers: Layers, for its layer): no default"],
    ),
    (
        ["T", "model.model_auto_encoder:ModelAutoEncoder", "dict", "autoencoder"],
        ["(shapes: Mapping[str,", "class ConfiguredModelAutoEncoder(ModelAutoEncoder):", "(shapes=..., groups=...)"],
    ),
    (
        ["T", "SmallCnn", "dict", "autoencoder"],
        ["suits --task autoencoder", "(B, 3, 16, 16): forward returned (B, 3)"],
    ),
    (
        ["T", "OddWidth", "tensor", "autoencoder"],
        ["x (B, 16); x (B, 32) and 10 more: RuntimeError", "`--input 16` or `--input 3x32x32`"],
    ),
    (
        ["T", "SmallRanker", "dict", "autoencoder"],
        ["suits --task autoencoder", "was built with dataset_dim = 16: it has"],
    ),
    (["T", "SmallRanker", "dict", "ranking", "--input", "1,2,3"], ["--input gives 3 shapes", "takes 2 inputs"]),
    (["T", "OddWidth", "tensor", "autoencoder", "--input", "7y"], ["--input 7y: must be the shape"]),
    (["T", "OddWidth", "tensor", "autoencoder", "--dry-run"], ["--new goes alone, without --dry-run"]),
]


@pytest.fixture(scope="module")
def refused(bare_project) -> list[tuple[int, str, str]]:
    """What the command line says to each of REFUSALS; the project's files must be the same after all of them."""
    lines = []
    for name, model, batch, task, *more in (words for words, _ in REFUSALS):
        target = model if ":" in model or "/" in model else f"{MODELS}:{model}"
        lines.append(["--new", name, "--model", target, "--batch", batch, "--task", task, *more])
    before = tree(bare_project)
    told = run_all(bare_project, lines)
    assert tree(bare_project) == before
    return told


@pytest.mark.parametrize("index", range(len(REFUSALS)), ids=lambda index: " ".join(REFUSALS[index][0]))
def test_a_refusal_exits_with_2_and_says_what_would_do(refused, index):
    code, error, output = refused[index]
    assert (code, output) == (2, ""), error
    assert error.startswith("error: ") and "Traceback" not in error
    assert [text for text in REFUSALS[index][1] if text not in error] == [], error


def test_nothing_is_overwritten(bare_project):
    names = ("config/takes_room_trainer_config.py", "train/takes_room_trainer.py")
    names += ("tests/train/test_takes_room_trainer.py",)
    ini = bare_project.path / "config.ini"
    old = ini.read_text()
    for name in names:
        (bare_project.path / name).parent.mkdir(exist_ok=True)
        (bare_project.path / name).write_text('"""Mine."""\n')
    bare_project.append("config.ini", "\n[TakesRoomTrainer]\nepochs = 1\n")
    before = tree(bare_project)
    done = new(bare_project, "TakesRoom", f"{MODELS}:SmallCnn", "dict", "classification")
    after = tree(bare_project)
    ini.write_text(old)
    for name in names:
        (bare_project.path / name).unlink()
    line = old.count("\n") + 2
    taken = [*(f"the file {name}" for name in names), f"the section [TakesRoomTrainer] at config.ini:{line}"]
    assert done.returncode == 2
    assert f"would overwrite {', '.join(taken)}. Remove it or take another name; nothing was written." in done.stderr
    assert after == before


def test_what_was_written_is_taken_back_where_the_rest_cannot_be(bare_project):
    tests = bare_project.path / "tests"
    tests.rename(bare_project.path / "aside")
    tests.write_text("a file where the folder should be\n")
    before = tree(bare_project)
    done = new(bare_project, "HalfWay", f"{MODELS}:SmallCnn", "dict", "classification")
    after = tree(bare_project)
    tests.unlink()
    (bare_project.path / "aside").rename(tests)
    assert done.returncode == 4
    place = "tests/train/test_half_way_trainer.py"
    assert done.stderr == (
        f"error: cannot write {place}: Not a directory. Nothing of the trainer was kept. Make room, or give this user "
        "the right to write there.\n"
    )
    assert after == before


def test_shapes_that_are_given_tell_the_sizes_of_the_constructor(bare_project, made):
    assert "OddWidth takes x (B, 77)" in made["Odd"][2]
    assert "dataset_tokens (B, 4, 20), model_tokens (B, 9, 5) and returns (B, 9)" in made["Shapes"][2]
    assert "\n[ShapesTrainer]\ndataset_dim = 20 " in (bare_project.path / "config.ini").read_text()


def test_constructor_parameters_become_keys(bare_project, made):
    source = (bare_project.path / "config/keys_trainer_config.py").read_text()
    for field in (
        'input_dim: Annotated[int, Gt(0)]\n    """Numbers of a sample."""',
        'hidden_dims: tuple[int, ...] = (12,)\n    """Widths of the hidden layers, the encoder\'s."""',
        "dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0\n",
        'activation: Literal["relu", "tanh"] = "relu"\n',
        "bias: bool = True\n",
        "model_seed: int | None = None\n",  # every trainer has a `seed`
    ):
        assert field in source
    assert "norm" not in source  # no config can hold a layer; it keeps its default
    assert "\n[KeysTrainer]\ninput_dim = 24 " in (bare_project.path / "config.ini").read_text()


def test_fields_of_a_config_object_become_keys(bare_project, made):
    source = (bare_project.path / "config/bundle_trainer_config.py").read_text()
    for field in (
        'input_dim: Annotated[int, Gt(0)]\n    """Numbers of a sample."""',
        'hidden: Annotated[int, Ge(0)] = 8\n    """Of the hidden layer; 0 has none."""',
        "widths_epochs: int = 3\n",  # every trainer has `epochs`
        "bias: bool = True\n",
    ):
        assert field in source


def test_what_is_missing_is_told_before_torch_is_imported(bare_project):
    code = (
        "import sys; from commands.command_line import main; c = main(['--new', 'T']); print(c, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bare_project.path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["2", "False"]
    assert "a new trainer needs --model, --batch, --task too" in done.stderr
