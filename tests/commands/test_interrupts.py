"""What is said of an interrupt, and of a value that is nearly one of those allowed."""

import pytest


def test_a_choice_that_is_nearly_one_is_told_which(shared_project):
    done = shared_project.run("FeatureFusion", "step=egaer")
    told = "must be one of auto, eager, compiled, graph, epoch; did you mean eager?"
    assert (done.returncode, done.stderr) == (2, f"error: command line: step = 'egaer': {told}\n")


def test_a_learning_rate_out_of_all_reason_is_answered_with_that_of_config_ini(shared_project):
    done = shared_project.run("FeatureFusion", "learning_rate=1e30")
    assert done.returncode == 4
    assert (
        "try: start a new run with learning_rate=0.01, the default, or one that --find-lr finds: 1e+30 is"
        in done.stderr
    )


@pytest.mark.parametrize("when", ["import", "build"])
def test_ctrl_c_before_the_run_folder_does_not_promise_a_resume(project, when):
    file = project.path / "train/feature_fusion_trainer.py"
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
    text = file.read_text()
    if when == "import":
        text = text.replace("from torch.optim import Adam\n", f"from torch.optim import Adam\n{kill}")
    else:
        text = text.replace("        self.optimizer = Adam(", f"        {kill}        self.optimizer = Adam(")
    file.write_text(text)
    done = project.run("FeatureFusion")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert not project.runs("FeatureFusion")


def test_ctrl_c_before_the_first_checkpoint_says_no_more_than_is_true(project):
    (project.path / "train/ending.py").write_text(
        "from train.callbacks import Callback\n"
        "class Ending(Callback):\n"
        "    def on_train_begin(self, trainer):\n"
        "        raise KeyboardInterrupt\n"
    )
    done = project.run("FeatureFusion", "callbacks=train.ending:Ending")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
