"""A Python without the packages that are needed: what it says, and what to call instead."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def called(project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python without its site-packages, as the system's is."""
    return subprocess.run([sys.executable, "-S", *words], cwd=project.path, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (("train.py", "ModelAutoEncoder", "epochs=1"), "pydantic"),
        (("recommend.py", "hebrew-4"), "pydantic"),
        (("-m", "evaluation"), "pydantic"),
    ],
)
def test_a_python_without_packages_is_told_what_to_do(shared_project, words, package):
    done = called(shared_project, *words)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {sys.executable} has no {package}, which Menagerie needs. `make train` sets up .venv with all of it; "
        "without make: pip install -r requirements.txt\n"
    )


def test_where_there_is_an_environment_it_is_named(project):
    (project.path / ".venv" / "bin").mkdir(parents=True)
    (project.path / ".venv" / "bin" / "python").touch()
    done = called(project, "train.py", "ModelAutoEncoder")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("is called so: .venv/bin/python train.py ...")
    assert done.stderr.splitlines()[1:] == ["or, for all commands in this shell: source .venv/bin/activate"]


def test_a_module_that_menagerie_does_without_is_the_trainers_own_matter(project):
    (project.path / "train" / "needy_trainer.py").write_text(
        "import no_such_library\n\nfrom train.base_trainer import BaseTrainer\n\n\n"
        "class NeedyTrainer(BaseTrainer):\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "train.py", "Needy"], cwd=project.path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 4
    assert "train/needy_trainer.py:1" in done.stderr
    assert "Menagerie needs" not in done.stderr


@pytest.mark.parametrize("script", ["train.py", "plot.py", "recommend.py"])
def test_ctrl_c_while_packages_are_imported_is_one_line(script, monkeypatch, capsys):
    """They take seconds, in which somebody may see that a word was wrong."""

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert left.value.code == 130 and capsys.readouterr() == ("", "error: interrupted\n")
