"""A copy of the project with sample trainers in it, and its command line."""

import atexit
import compileall
import contextlib
import gc
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import warm_python
from longest_files import LONGEST
from warm_python import run_python

# A shell starts background jobs with SIGINT ignored, which all that tests start would inherit; a handler they do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = Path(__file__).resolve().parent / "samples"
PACKAGES = (
    "agents", "commands", "config", "constants", "data", "doctor", "evaluation", "llm", "model", "service", "storage",
    "train", "workflow",
)  # fmt: skip
FILES = (
    "train.py", "plot.py", "recommend.py", "menagerie.py", "doctor.py", "workflow.py", "tune.py", "serve.py",
    "config.ini", "beautilog.ini",
)  # fmt: skip


@dataclass
class Project:
    """A project folder of its own, in which a test may do what it likes."""

    path: Path

    def run(self, *words: str, script: str = "train.py", cwd: Path | None = None, **environment: str):
        """Run the command line in a new process; returns the CompletedProcess with text output."""
        return run_python([self.path / script, *words], cwd or self.path, environment)

    def runs(self, model_name: str) -> list[Path]:
        """Return the run folders of a model, oldest first."""
        return sorted((self.path / "artifacts" / "models" / model_name / "runs").glob("*"))

    def append(self, name: str, text: str) -> None:
        """Add text to a file."""
        with (self.path / name).open("a", encoding="utf-8") as stream:
            stream.write(text)


def copy_project(target: Path) -> Project:
    """Copy the program (not its artifacts or git data) to a folder and add the sample trainers."""
    _copy_program(target)
    for package in ("config", "train", "model"):
        shutil.copytree(_compiled() / "samples" / package, target / package, copy_function=_copied, dirs_exist_ok=True)
    project = Project(target)
    # Short runs write after each epoch, so that tests know what is there.
    settings, samples = (target / "config.ini").read_text(), (SAMPLES / "sections.ini").read_text()
    for name in re.findall(r"^\[(\w+)\]", samples, flags=re.MULTILINE):  # a trainer of that name gives way too
        settings = re.sub(rf"^\[{name}\]\n.*?(?=^\[|\Z)", "", settings, flags=re.MULTILINE | re.DOTALL)
    (target / "config.ini").write_text(settings.replace("saving_share = 0.05", "saving_share = 1   "))
    project.append("config.ini", samples)
    return project


@cache
def _compiled() -> Path:
    """Return a copy of the program and of the sample trainers with their bytecode.

    Copies keep the times of files, so bytecode counts in each: else every run would compile three hundred files, a
    third of what a short one costs.
    """
    folder = Path(tempfile.mkdtemp(prefix="compiled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for package in (*PACKAGES, "examples"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("zoo"))
    shutil.copytree(SAMPLES, folder / "samples")
    compileall.compile_dir(folder, quiet=1)  # what has bytecode already is passed over
    return folder


def _copied(source: str, target: str) -> str:
    """Copy a file; of bytecode, which Python only ever replaces as a whole, take the same one: half of the time."""
    if source.endswith(".pyc"):
        Path(target).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # on another disk, say
            os.link(source, target)
            return target
    return shutil.copy2(source, target)


def _copy_program(target: Path) -> None:
    for package in (*PACKAGES, "examples"):
        shutil.copytree(_compiled() / package, target / package, copy_function=_copied)
    (target / "data" / "zoo").symlink_to(ROOT / "data" / "zoo")
    for name in FILES:
        shutil.copy(ROOT / name, target / name)


@pytest.fixture(scope="session")
def new_users_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Make a copy as users have it, without sample trainers, with what its own tests need."""

    def make() -> Project:
        target = tmp_path_factory.mktemp("users") / "project"
        _copy_program(target)
        shutil.copy(ROOT / "pyproject.toml", target / "pyproject.toml")
        shutil.copytree(SAMPLES, target / "tests" / "samples")
        for name in ("conftest.py", "longest_files.py", "warm_python.py"):
            shutil.copy(ROOT / "tests" / name, target / "tests" / name)
        return Project(target)

    return make


@pytest.fixture(scope="module")
def users_project(new_users_project: Callable[[], Project]) -> Project:
    """A copy as users have it, for the tests of one module."""
    return new_users_project()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project with the sample trainers."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy for tests of one module that only add runs to it."""
    return copy_project(tmp_path_factory.mktemp("shared") / "project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cold", action="store_true", help="start Python itself for each run (see warm_python.py)")


def pytest_configure(config: pytest.Config) -> None:
    warm_python.cold = config.getoption("--cold")
    workers = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if workers:  # once, before each of them would; PYTHONDONTWRITEBYTECODE may be set
        for folder in (*(ROOT / package for package in (*PACKAGES, "examples")), SAMPLES):
            compileall.compile_dir(folder, quiet=1)
    if workers and not warm_python.cold:
        warm_python.start_server()  # one for all of them, ready when they have collected their tests


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, and never again among what that leaves: millions of objects.

    Else each full collection walks through them, of which a test that compiles or trains in this process has dozens.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; run tests marked `gpu` only where there is a CUDA device."""
    sizes = Counter(item.path for item in items)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.stem, len(LONGEST)), -sizes[item.path], str(item.path)))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        reason = pytest.mark.skip(reason="needs a CUDA device")
        for item in gpu if not torch.cuda.is_available() else []:
            item.add_marker(reason)
