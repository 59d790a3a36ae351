"""`--new`: what it writes trains, passes its own test and the project's checks; what it refuses leaves nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from warm_python import run_python

MODELS = "model.small_models"
LONG = "ClassifiesSmallImagesByAConvolutionalNetworkCNN"  # whose lines must be wrapped
STEMS = {
    "TinyEncoderTrainer": "tiny_encoder",
    LONG: "classifies_small_images_by_a_convolutional_network_cnn",
    "TinyRanker": "tiny_ranker",
    "TinySeries": "tiny_series",
}


@pytest.fixture(scope="module")
def bare_project(users_project):
    """The project as users have it, with some models."""
    target = users_project.path
    models = target / "tests" / "samples" / "scaffold" / "small_models.py"
    shutil.copy(models, target / "model" / "small_models.py")
    shutil.copy(models, target / "elsewhere.py")
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
    done = run_python(["-m", *words], project.path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "model", "batch", "task", "texts"),
    [
        ("TinyEncoderTrainer", "elsewhere:SmallAutoEncoder", "tensor", "autoencoder", ["Adam(", "ReduceLROnPlateau("]),
        (LONG, f"{MODELS}:SmallCnn", "dict", "classification", ["SGD(", "momentum=0.9", "StepLR(", "3, 16, 16"]),
        pytest.param(
            "TinyRanker",
            f"{MODELS}:SmallRanker",
            "dict",
            "ranking",
            ["Adam(", "ReduceLROnPlateau(", "list_net("],
            marks=pytest.mark.slow,
        ),
        ("TinySeries", f"{MODELS}:SmallTransformer", "dataclass", "transformer", ["AdamW(", "warmup_cosine("]),
    ],
)
def test_what_is_written_trains_and_passes_the_checks(bare_project, name, model, batch, task, texts):
    before = tree(bare_project)
    done = new(bare_project, name, model, batch, task)
    assert done.returncode == 0, done.stderr
    stem = STEMS[name]
    written = [f"config/{stem}_trainer_config.py", f"train/{stem}_trainer.py", f"tests/train/test_{stem}_trainer.py"]
    assert [line.strip() for line in done.stdout.splitlines() if line.strip() in written] == written
    after = tree(bare_project)
    changed = {path for path in after if after[path] != before.get(path) and Path(path).suffix}
    assert changed == {*written, "config.ini"}
    assert after["config.ini"].startswith(before["config.ini"])  # the section is at the end, the rest as it was
    source = (bare_project.path / written[1]).read_text()
    assert ("def compute_loss" in source) == (batch == "tensor") != ("def _forward_batch" in source)
    assert [text for text in [*texts, "def _data()", "REPLACE THIS"] if text not in source] == []

    short = name.removesuffix("Trainer")
    dry = bare_project.run(short, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    done = bare_project.run(short, "epochs=3", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    losses = json.loads((bare_project.runs(short)[-1] / "metrics.json").read_text())["history"]["train_loss"]
    assert len(losses) == 3 and losses[2] < losses[0]
    check(bare_project, "ruff", "check", *written)
    check(bare_project, "ruff", "format", "--check", *written)
    check(bare_project, "pytest", "-q", "-p", "no:cacheprovider", written[2])


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
    (["T", "SmallRanker", "tensor", "ranking"], ["--batch tensor has no place for what --task ranking learns"]),
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
# One process for all: a start costs seconds. Each line of the output is [exit code, stderr, stdout].
RUN_ALL = """
import contextlib, io, json, sys
from train.command_line import main

for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([code, err.getvalue(), out.getvalue()]))
"""


@pytest.fixture(scope="module")
def refused(bare_project) -> list[tuple[int, str, str]]:
    """What the command line says to each of REFUSALS; the project's files must be the same after all of them."""
    lines = []
    for name, model, batch, task, *more in (words for words, _ in REFUSALS):
        target = model if ":" in model or "/" in model else f"{MODELS}:{model}"
        lines.append(["--new", name, "--model", target, "--batch", batch, "--task", task, *more])
    before = tree(bare_project)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], cwd=bare_project.path, input=json.dumps(lines), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(bare_project) == before
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    assert done.returncode == 4 and "Nothing of the trainer was kept" in done.stderr, done.stderr
    assert after == before


@pytest.mark.slow
def test_a_shape_that_is_given_is_taken(bare_project):
    done = new(bare_project, "Odd", f"{MODELS}:OddWidth", "tensor", "autoencoder", "--input", "77")
    assert done.returncode == 0, done.stderr
    assert "OddWidth takes x (B, 77)" in done.stdout
    assert bare_project.run("Odd", "--dry-run").returncode == 0


@pytest.mark.slow
def test_shapes_of_several_inputs_tell_the_sizes_of_the_constructor(bare_project):
    done = new(bare_project, "Shapes", f"{MODELS}:SmallRanker", "dict", "ranking", "--input", "4x20,9x5")
    assert done.returncode == 0, done.stderr
    assert "dataset_tokens (B, 4, 20), model_tokens (B, 9, 5) and returns (B, 9)" in done.stdout
    assert "\n[ShapesTrainer]\ndataset_dim = 20 " in (bare_project.path / "config.ini").read_text()


@pytest.mark.slow
def test_a_model_of_tokens_gets_tokens(bare_project):
    done = new(bare_project, "Words", f"{MODELS}:SmallLanguageModel", "tensor", "transformer")
    assert done.returncode == 0, done.stderr
    assert "tokens (B, 6) and returns (B, 6, 11)" in done.stdout
    done = bare_project.run("Words", "epochs=1", "plot_at_end=off")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_further_inputs_may_be_one_number_a_sample(bare_project):
    done = new(bare_project, "Denoise", f"{MODELS}:SmallDenoiser", "dataclass", "autoencoder")
    assert done.returncode == 0, done.stderr
    assert "x (B, 6), t (B,), label (B,) and returns (B, 6)" in done.stdout
    done = bare_project.run("Denoise", "epochs=1", "plot_at_end=off")
    assert done.returncode == 0, done.stderr


def test_constructor_parameters_become_keys(bare_project):
    done = new(bare_project, "Keys", f"{MODELS}:SmallAutoEncoder", "dataclass", "autoencoder", "--input", "24")
    assert done.returncode == 0, done.stderr
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
    done = bare_project.run("Keys", "--dry-run", "hidden_dims=9, 9", "activation=tanh")
    assert done.returncode == 0, done.stderr


def test_what_is_missing_is_told_before_torch_is_imported(bare_project):
    code = "import sys; from train.command_line import main; c = main(['--new', 'T']); print(c, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bare_project.path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["2", "False"]
    assert "a new trainer needs --model, --batch, --task too" in done.stderr
