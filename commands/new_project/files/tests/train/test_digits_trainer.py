"""DigitsTrainer learns, through the command line."""

import json


def test_digits_trainer_learns(users_project):
    done = users_project.run("DigitsTrainer", "epochs=5", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((users_project.runs("Digits")[-1] / "metrics.json").read_text())
    history = metrics["history"]
    assert len(history["val_loss"]) == 5
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert history["val_accuracy"][-1] > 0.85  # guessing reaches 0.1
