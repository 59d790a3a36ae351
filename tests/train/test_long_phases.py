"""Whoever waits is told for what: before the first step and after the last; nothing is said of what is quick."""

import re

WAITING = """
import logging, sys, threading
from commands.command_line import main
from train.loop import long_phases

long_phases.DELAY = 0.01
heard: dict[str, threading.Event] = {}


class Hearing(logging.Handler):
    def emit(self, record):
        for text, event in list(heard.items()):
            if text in record.getMessage():
                event.set()


def wait_for(text):
    # A slow phase, that lasts as long as it takes to be told of.
    assert heard.setdefault(text, threading.Event()).wait(60), text


import builtins
builtins.wait_for = wait_for
logging.getLogger().addHandler(Hearing())
sys.exit(main(sys.argv[1:]))
"""


def test_each_long_phase_is_told_of_while_it_lasts(project):
    file = project.path / "train/feature_fusion_trainer.py"
    text = file.read_text()
    imports = "from torch.optim import Adam\n"
    text = text.replace(imports, f"{imports}wait_for('importing torch and FeatureFusionTrainer ...')\n")
    text = text.replace(
        "        self.optimizer = Adam(",
        '        wait_for("building FeatureFusionTrainer")\n        self.optimizer = Adam(',
    )
    text = text.replace(
        "        batch = batch.to(self.device)\n",
        "        batch = batch.to(self.device)\n"
        '        wait_for("trying the first samples")\n'
        "        if self.run_context.in_session:\n"
        '            wait_for("on the way to the first step")\n',
    )
    text += (
        "\n    def after_training(self):\n"
        '        wait_for("after the last epoch: FeatureFusionTrainer.after_training()")\n'
        "\n    def plot_metrics(self):\n"
        '        wait_for("drawing the plots")\n'
    )
    file.write_text(text)
    (project.path / "waiting.py").write_text(WAITING)
    done = project.run("FeatureFusion", "epochs=1", "plot_at_end=on", script="waiting.py")
    assert done.returncode == 0, done.stderr + done.stdout
    assert re.search(r"INFO drawing the plots \.\.\. \(\d+ s\)\n", done.stdout)
    log = (project.runs("FeatureFusion")[-1] / "train.log").read_text()
    assert "INFO on the way to the first step: batches are read, code is compiled (step = auto) ... (" in log


def test_what_is_quick_is_not_told(shared_project):
    (shared_project.path / "patient.py").write_text(
        "import sys\nfrom commands.command_line import main\nfrom train.loop import long_phases\n"
        "long_phases.DELAY = 3600.0\nsys.exit(main(sys.argv[1:]))\n"
    )
    done = shared_project.run("FeatureFusion", "epochs=1", script="patient.py")
    assert done.returncode == 0, done.stderr
    assert " ... (" not in done.stdout
