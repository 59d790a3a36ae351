"""A Python without the packages that are needed: what it says, and what to call instead."""

import subprocess
import sys

import pytest


def called(project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python without its site-packages, as the system's is."""
    return subprocess.run([sys.executable, "-S", *words], cwd=project.path, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (("train.py", "ModelAutoEncoder", "epochs=1"), "pydantic"),
        (("recommend.py", "hebrew-4"), "beautilog"),
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
