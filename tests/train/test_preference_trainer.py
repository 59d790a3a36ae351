"""Preferences through the command line: what is learned, beside what the model was, and a run that is killed."""

import json
import math

import pytest

pytest.importorskip("transformers")
pytest.importorskip("gguf")

KILLED = """
import os, signal
from train.callbacks import Callback

class Watch(Callback):
    def on_step_end(self, trainer, steps):
        if trainer.record.progress.step == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
WORDS = {"base_model": "tiny", "train_data": "pairs.jsonl", "plot_at_end": "off", "epochs": "3", "batch_size": "4",
         "sample_count": "0", "learning_rate": "3e-3", "callbacks": "watch:Watch", "checkpoint_every_n_steps": "1",
         "val_share": "0.25"}  # fmt: skip


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "watch.py").write_text(KILLED)
    rows = [{"messages": [{"role": "user", "content": f"{letter}?"}, {"role": "assistant", "content": letter.upper()}],
             "rejected": "?"} for letter in "abcdefghijkl"]  # fmt: skip
    lines = [json.dumps(row) for row in [*rows, {"messages": rows[0]["messages"]}]]
    (shared_project.path / "pairs.jsonl").write_text("\n".join(lines))
    return shared_project


def trained(lab, *words: str, **environment: str):
    given = WORDS | dict(word.split("=", 1) for word in words)
    done = lab.run("Preference", *(f"{name}={value}" for name, value in given.items()), **environment)
    run = lab.runs("Preference")[-1]
    return done, run


def test_chosen_answers_become_likelier_and_a_killed_run_ends_with_the_same_bits(lab):
    done, run = trained(lab)
    assert done.returncode == 0, done.stderr
    content = json.loads((run / "metrics.json").read_text())
    history, account = content["history"], content["summary"]["train_data"]
    assert account["rows_used"] == 12 and sum(account["rows_left_out"].values()) == 1
    assert history["val_accuracy"][-1] == 1 and history["train_margin"][-1] > 0.5
    assert history["val_loss"][-1] < history["val_loss"][0] < math.log(2) + 0.1
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    killed, other = trained(lab, KILL_AT="4")
    assert killed.returncode == -9 and other != run
    again = lab.run("Preference", "--resume", str(other))
    assert again.returncode == 0, again.stderr
    assert (other / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert json.loads((other / "metrics.json").read_text())["history"] == history


def test_before_the_first_step_the_model_is_its_own_reference(lab):
    """A rate of almost 0 leaves all margins at 0: the loss is log 2 for DPO, (1 / (2 beta))^2 for IPO, 1 for hinge."""
    for loss, wanted in (("sigmoid", math.log(2)), ("ipo", 25.0), ("hinge", 1.0)):
        done, run = trained(lab, f"loss={loss}", "learning_rate=1e-30", "epochs=1")
        assert done.returncode == 0, done.stderr
        history = json.loads((run / "metrics.json").read_text())["history"]
        assert history["val_loss"] == [pytest.approx(wanted, rel=1e-4)], loss
        assert history["train_loss"] == [pytest.approx(wanted, rel=1e-4)], loss


def test_rows_without_pairs_are_refused(lab):
    (lab.path / "none.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    done, _ = trained(lab, "train_data=none.jsonl")
    assert done.returncode != 0 and "no pair is left to learn from" in done.stderr and "`rejected`" in done.stderr
    assert "Traceback" not in done.stderr
