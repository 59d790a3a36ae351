"""The command `menagerie`: projects of one's own, with the program installed by pip and from a checkout."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from warm_python import run_python

from constants import VERSION

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
FILES = ("menagerie.py", "beautilog.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE", "docs/licences.md")
LARGEST_WHEEL = 20_000_000  # bytes


def call(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=600, check=False
    )


def commit_all(folder: Path) -> str:
    """Put a folder under version control; returns the commit."""
    git = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        done = call(*git, *words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return call("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


@dataclass
class Installed:
    """An environment that Menagerie is installed in.

    Attributes:
        scripts: folder of its commands.
        source: tree that it was installed from.
        commit: commit of the tree.
    """

    scripts: Path
    source: Path
    commit: str

    def run(self, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
        """Run a command of the environment: menagerie, or python."""
        path = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        return call(self.scripts / str(words[0]), *words[1:], cwd=cwd, PATH=path, **environment)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installed]:
    """Return a function that installs this tree by pip into a new environment, which borrows this one's packages."""

    def make(*options: str) -> Installed:
        folder = tmp_path_factory.mktemp("installed")
        source = folder / "source"
        for package in PACKAGES:
            shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (*FILES, *(path.name for path in ROOT.glob("requirements*.txt"))):
            (source / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        commit = commit_all(source)
        done = call(sys.executable, "-m", "venv", "--without-pip", "environment", cwd=folder)
        assert done.returncode == 0, done.stderr
        [packages] = (folder / "environment" / "lib").glob("python*/site-packages")
        (packages / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
        python = folder / "environment" / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install")
        done = call(*pip, "--no-build-isolation", "--no-deps", "--no-index", *options, source, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return Installed(python.parent, source, commit)

    return make


@pytest.fixture(scope="module")
def installed(install: Callable[..., Installed]) -> Installed:
    return install()


@pytest.fixture
def from_checkout(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs menagerie.py of this checkout in a project, `tmp_path / "my_project"`."""
    project = tmp_path / "my_project"

    def run(*words: object, cwd: Path = project, **environment: str) -> subprocess.CompletedProcess:
        return run_python([ROOT / "menagerie.py", *words], cwd, environment)

    done = run("init", project, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return run


def runs_of(project: Path, model: str) -> list[Path]:
    return sorted((project / "artifacts" / "models" / model / "runs").glob("*"))


@pytest.mark.slow
def test_an_installed_program_trains_a_new_project(installed, tmp_path):
    shown = installed.run("menagerie", "--version", cwd=tmp_path)
    assert shown.stdout == f"menagerie {VERSION} (commit {installed.commit[:10]})\n"
    done = installed.run("menagerie", "init", "my_project", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\n  cd my_project\n  menagerie train Digits --dry-run\n" in done.stdout
    project = tmp_path / "my_project"
    commit = commit_all(project)
    with (project / "config.ini").open("a") as stream:
        stream.write("; not committed\n")

    done = installed.run("menagerie", "train", "digits", "epochs=5", "plot_at_end=off", cwd=project / "train")
    assert done.returncode == 0, done.stderr
    [run] = runs_of(project, "Digits")
    history = json.loads((run / "metrics.json").read_text())["history"]
    assert history["val_accuracy"][-1] > 0.85
    made_from = json.loads((run / "environment.json").read_text())
    assert made_from["menagerie"] == {"version": VERSION, "commit": installed.commit}
    assert made_from["git"]["commit"] == commit
    assert "+; not committed" in made_from["git"]["diff"]


def test_without_a_project(installed, tmp_path):
    done = installed.run("menagerie", "train", "Digits", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: there is no project here: neither {tmp_path} nor a folder above it has a config.ini. Go into your "
        "project's folder, or write one: menagerie init my_project\n"
    )
    done = installed.run("menagerie", "train", "--list", cwd=tmp_path)
    assert done.returncode == 0 and "ModelZooTrainer" in done.stdout
    done = installed.run("menagerie", "init", cwd=tmp_path)
    assert done.returncode == 2 and "the following arguments are required: FOLDER" in done.stderr
    done = installed.run("menagerie", cwd=tmp_path)
    assert done.returncode == 2 and "menagerie init FOLDER         write a small project" in done.stderr
    done = installed.run("menagerie", "tarin", cwd=tmp_path)
    assert done.returncode == 2 and "'tarin' is none of init, train" in done.stderr


def test_what_an_installed_program_has(installed):
    folder = installed.source.parent
    wheel = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    done = call(*wheel, "-w", folder / "wheel", installed.source, cwd=folder)
    assert done.returncode == 0, done.stderr
    [path] = (folder / "wheel").iterdir()
    assert path.stat().st_size < LARGEST_WHEEL
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    wanted = {"constants/beautilog.ini", "constants/dataset_model_performance.json", "menagerie.py"}
    wanted |= {str(file.relative_to(ROOT)) for file in (ROOT / "data" / "zoo").rglob("*") if file.is_file()}
    files = ROOT / "commands" / "new_project" / "files"
    wanted |= {str(file.relative_to(ROOT)) for file in files.rglob("*.*") if "__pycache__" not in file.parts}
    assert not wanted - names
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops == {*PACKAGES, "menagerie.py"}, "nothing else is put beside other packages"
    needed = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert re.findall(r"^Requires-Dist: ([\w-]+)==[\d.]+$", metadata, flags=re.MULTILINE) == needed
    assert 'Requires-Dist: optuna==5.0.0; extra == "optional"' in metadata
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def commands_of_readme(project: Path) -> list[str]:
    """The commands that a new project's README shows, without their comments."""
    block = re.search(r"```sh\n(.*?)```", (project / "README.md").read_text(), flags=re.DOTALL)
    assert block
    return [line.partition("#")[0].strip() for line in block[1].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--editable",)], ids=["installed", "editable"])
def test_what_a_new_projects_readme_shows_works(install, tmp_path, options):
    installed = install(*options)
    assert installed.run("menagerie", "init", "my_project", cwd=tmp_path).returncode == 0
    project = tmp_path / "my_project"
    (project / "model" / "my_model.py").write_text(MY_MODEL)
    commands = [*commands_of_readme(project), "menagerie train Digits --sweep sweep.yaml"]
    new = re.search(r"^    (menagerie train --new .*)", (project / "README.md").read_text(), flags=re.MULTILINE)
    assert new and len(commands) == 9
    for command in [
        *commands,
        new[1],
        "menagerie train My epochs=2",
        "python -m pytest tests/train/test_my_trainer.py",
    ]:
        done = installed.run(*shlex.split(command), cwd=project)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    resumed = json.loads((runs_of(project, "Digits")[0] / "metrics.json").read_text())
    assert len(resumed["history"]["val_loss"]) == 40
    assert not list(project.rglob("train.py")), "all is the project's own"
    several = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "-m", "menagerie", "train", "Digits", "epochs=1")
    assert installed.run("python", *several, cwd=project).returncode == 0


MY_MODEL = '''"""A model of the project's."""

import torch
from torch import nn


class MyModel(nn.Module):
    def __init__(self, input_dim: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(input_dim, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)
'''


# ---- in a checkout: the same rules, without an installation ----------------------------------------------------------


OWN_DATA = '''"""Numbers, one by one."""

import torch
from torch.utils.data import Dataset


class Numbers(Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((64,), index / 32)
'''
OWN_TRAINER = '''"""Learns numbers, from workers that are started anew."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from config import BaseTrainerConfig, ConfigParser
from data.numbers_of_ours import Numbers
from train.base_trainer import BaseTrainer


class WorkersTrainer(BaseTrainer):
    """Learns numbers."""

    def __init__(self):
        self.config = ConfigParser.get(BaseTrainerConfig)
        self.model = nn.Linear(64, 64)
        options = {"batch_size": 8, "num_workers": 1, "multiprocessing_context": CONTEXT}
        self.train_loader, self.val_loader = DataLoader(Numbers(), **options), DataLoader(Numbers(), **options)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1)
        self.init_progress_bar(total=8, desc="Training")
        super().__init__()

    def compute_loss(self, batch):
        return (self.model(batch) - batch).square().mean()
'''


@pytest.mark.parametrize("context", [pytest.param("spawn", marks=pytest.mark.slow), "fork"])
def test_workers_find_the_projects_modules(from_checkout, tmp_path, context):
    project = tmp_path / "my_project"
    (project / "data").mkdir()
    (project / "data" / "numbers_of_ours.py").write_text(OWN_DATA)
    (project / "train" / "workers_trainer.py").write_text(OWN_TRAINER.replace("CONTEXT", repr(context)))
    done = from_checkout("train", "Workers", "epochs=2", "plot_at_end=off", cwd=project / "data")
    assert done.returncode == 0, done.stderr
    [run] = runs_of(project, "Workers")
    assert len(json.loads((run / "metrics.json").read_text())["history"]["val_loss"]) == 2


def test_version_is_told_by_every_command(from_checkout):
    told = from_checkout("--version").stdout
    commit = r" \(commit [0-9a-f]{10}(, with uncommitted changes)?\)"
    assert re.fullmatch(rf"menagerie {re.escape(VERSION)}({commit})?\n", told)
    for words in (("train",), ("plot",), ("recommend",), ("evaluate",)):
        assert from_checkout(*words, "--version").stdout == told
    for script in ("train.py", "plot.py", "recommend.py"):
        assert run_python([ROOT / script, "--version"], ROOT).stdout == told


def test_messages_name_the_command_that_was_called(from_checkout):
    done = from_checkout("train", "Digit")
    assert done.returncode == 2
    assert "did you mean DigitsTrainer? `menagerie train --list` shows all." in done.stderr
    helped = from_checkout("train", "--help").stdout
    assert helped.startswith("usage: menagerie train ") and "\n  menagerie train --list\n" in helped
    assert "python train.py" not in helped
    assert "`menagerie train NAME` makes one" in from_checkout("plot", "latest").stderr
    helped = run_python([ROOT / "train.py", "--help"], ROOT).stdout
    assert helped.startswith("usage: python train.py ") and "menagerie" not in helped


def test_new_writes_into_the_project_and_what_it_tells_next_can_be_typed(from_checkout, tmp_path):
    project = tmp_path / "my_project"
    for path in (project / "tests", project / "train", project / "config"):  # one that `menagerie init` has not made
        shutil.rmtree(path)
    (project / "config.ini").write_text("[BaseTrainer]\nplot_at_end = off\n")
    (project / "model" / "my_model.py").write_text(MY_MODEL)
    before = {path.name for path in ROOT.glob("*/*")}
    made = ["--model", "model.my_model:MyModel", "--batch", "dataclass", "--task", "classification"]
    done = from_checkout("train", "--new", "My", *made)
    assert done.returncode == 0, done.stderr
    written = [
        "config/my_trainer_config.py",
        "train/my_trainer.py",
        "tests/train/test_my_trainer.py",
        "tests/conftest.py",
    ]
    assert [line.strip() for line in done.stdout.splitlines() if line.strip() in written] == written
    assert "[MyTrainer]" in (project / "config.ini").read_text()
    assert {path.name for path in ROOT.glob("*/*")} == before, "nothing of it is in the checkout"
    commands = done.stdout.split("\nnext\n")[1].splitlines()[:2]
    assert [line.split()[-2:] for line in commands] == [["My", "--dry-run"], ["train", "My"]]
    for line in commands:
        ran = call("bash", "-c", f"{line} epochs=1", cwd=project)
        assert ran.returncode == 0, ran.stderr
    assert len(runs_of(project, "My")) == 1


def test_make_new_tells_next_what_make_does(users_project):
    shutil.copy(
        ROOT / "tests/samples/model/feature_fusion_model.py", users_project.path / "model" / "feature_fusion.py"
    )
    model = ("--model", "model.feature_fusion:FeatureFusionModel", "--batch", "dict", "--task", "autoencoder")
    done = users_project.run("--new", "FusionTrainer", *model, MENAGERIE_MAKE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("next\n")[1].splitlines()[:3] == [
        "  make train TRAINER=Fusion ARGS=--dry-run",
        "  make train TRAINER=Fusion",
        "  make test ARGS=tests/train/test_fusion_trainer.py",
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert "\nnew: $(VENV)/.ready\n\tMENAGERIE_MAKE=1 $(RUN) train.py --new $(ARGS)\n" in makefile


def test_a_run_is_gone_on_with_by_another_version_but_not_in_silence(from_checkout, tmp_path):
    project = tmp_path / "my_project"
    assert from_checkout("train", "Digits", "epochs=1", "plot_at_end=off").returncode == 0
    [run] = runs_of(project, "Digits")
    made_from = json.loads((run / "environment.json").read_text())
    made_from["menagerie"]["version"] = "0.0.9"
    (run / "environment.json").write_text(json.dumps(made_from))
    done = from_checkout("train", "Digits", "epochs=2", "plot_at_end=off", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"Menagerie has another version: 0.0.9 -> {VERSION}" in (run / "train.log").read_text()
    assert len(json.loads((run / "metrics.json").read_text())["history"]["val_loss"]) == 2


def test_a_project_has_its_own_trainers_and_those_that_come_with_the_program(from_checkout):
    listed = from_checkout("train", "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == [
        "AgentTrainer", "DigitsTrainer", "GroundTruthTrainer", "ImageClassifierTrainer", "LanguageModelTrainer",
        "ModelAutoEncoderTrainer", "ModelZooTrainer", "NetworkPopulationTrainer", "PreferenceTrainer",
        "PromptDistillationTrainer", "SimilarityTransformerTrainer",
    ]  # fmt: skip


def test_an_installed_zoo_is_not_published_over(from_checkout):
    done = from_checkout("train", "ModelZoo", "publish=on", "--dry-run")
    assert done.returncode == 2
    assert (
        "publish = on would replace the zoo of the installed Menagerie: set zoo_dir to a place of yours" in done.stderr
    )
    done = from_checkout("train", "GroundTruth", "publish=on", "--dry-run")
    assert done.returncode == 2 and "set performance to a place of yours" in done.stderr


def test_init_overwrites_nothing(from_checkout, tmp_path):
    config = tmp_path / "my_project" / "config.ini"
    config.write_text("[BaseTrainer]\nepochs = 3\n")
    done = from_checkout("init", "my_project", cwd=tmp_path)
    assert done.returncode == 2
    assert "would overwrite" in done.stderr and "config.ini" in done.stderr and "nothing was written" in done.stderr
    assert config.read_text() == "[BaseTrainer]\nepochs = 3\n"
    done = from_checkout("init", config, cwd=tmp_path)
    assert done.returncode == 2 and "there is a file of that name" in done.stderr


def test_modules_that_hide_others_are_refused(from_checkout, tmp_path):
    project = tmp_path / "my_project"
    for name in ("train/__init__.py", "data/loaders.py", "model.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    done = from_checkout("train", "Digits")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {project}/model.py hides Menagerie's package model: give it another name",
        f"{project}/train/__init__.py hides Menagerie's package train: remove it, the folder works without",
        f"{project}/data/loaders.py has the name of a module of Menagerie's, which is found in its place: give it "
        "another name",
    ]


def test_a_checkouts_scripts_work_in_the_checkout_wherever_they_are_called(from_checkout, tmp_path):
    done = run_python([ROOT / "train.py", "--list"], tmp_path / "my_project")
    assert "DigitsTrainer" not in done.stdout and "ModelZooTrainer" in done.stdout
