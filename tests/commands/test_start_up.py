"""What is imported when: start-up is part of every run, and a library that nobody uses costs up to a second."""

import subprocess
import sys

import pytest

HEAVY = "torch numpy pandas scipy sklearn matplotlib pydantic sympy tqdm beautilog safetensors yaml PIL"
UNUSED = "pandas scipy sklearn matplotlib yaml PIL torchvision IPython tensorboard torch.utils.tensorboard"


def imported(project, script: str, names: str, *words: str) -> list[str]:
    """Run a script in a new process and return which modules it says it has at its end."""
    code = f"NAMES = {names.split()}\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=project.path, capture_output=True, text=True, timeout=120
    )
    assert "MODULES" in done.stdout, done.stdout + done.stderr
    return done.stdout.split("MODULES", 1)[1].split("\n")[0].split()


AT_THE_END = """
import sys
from commands.command_line import main
main(sys.argv[1:])
print("MODULES", *[name for name in NAMES if name in sys.modules])
"""

AT_THE_FIRST_STEP = """
import gc, os, sys
from commands import command_line
build = command_line._import_quickly

def watched(entry):
    trainer_class = build(entry)
    forward, frozen = trainer_class._forward_batch, gc.get_freeze_count()

    def first(trainer, batch):
        loss = forward(trainer, batch)
        if trainer.model.training:
            assert gc.isenabled()
            frozen > 100_000 and print("MODULES", *[name for name in NAMES if name in sys.modules], flush=True)
            os._exit(0)
        return loss

    trainer_class._forward_batch = first
    return trainer_class

command_line._import_quickly = watched
command_line.main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["--list"], ["--help"], ["FeatureFusion", "--help"], ["ModelAutoEncoder", "--help"]])
def test_a_question_is_answered_without_a_library(shared_project, words):
    read = ["pydantic"] if len(words) > 1 else []  # a trainer's values in force are read, as a run reads them
    assert set(imported(shared_project, AT_THE_END, HEAVY, *words)) <= set(read)


def test_a_typing_error_is_told_without_torch(shared_project):
    assert "torch" not in imported(shared_project, AT_THE_END, HEAVY, "FeatureFusion", "epohcs=3")


@pytest.mark.parametrize("name", ["FeatureFusion", "OwnLoop"])
def test_the_first_step_is_reached_with_what_a_run_needs(shared_project, name):
    """And with the garbage collector at work again, but not on what the imports made."""
    assert imported(shared_project, AT_THE_FIRST_STEP, UNUSED, name, "epochs=1") == []


@pytest.mark.slow
def test_the_autoencoder_reaches_its_first_step_without_statistics(shared_project):
    names = "scipy.stats sklearn matplotlib pandas PIL"
    assert imported(shared_project, AT_THE_FIRST_STEP, names, "ModelAutoEncoder", "epochs=1") == []
