"""The main job through the command line, on the committed zoo."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.model_zoo import load_zoo


def test_main_job_writes_tokens_and_reports_on_held_out_networks(shared_project):
    done = shared_project.run("ModelAutoEncoderTrainer", "epochs=2", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    run = shared_project.runs("ModelAutoEncoder")[-1]
    summary = json.loads((run / "metrics.json").read_text())["summary"]
    assert summary["reconstruction_r2_low"] > 0.5
    assert summary["reconstruction_r2_beyond_initial_weights"] > 0.3
    assert summary["code_accuracy_r2"] >= summary["statistics_accuracy_r2"] - 0.01
    assert summary["code_domain_accuracy"] >= summary["statistics_domain_accuracy"]
    tokens = load_file(run / "model_tokens.safetensors")
    zoo = load_zoo()
    assert tokens.keys() == {entry.name for entry in zoo}
    for entry in zoo:
        assert tokens[entry.name].shape == (len(entry.source_accuracy), 512)
        assert torch.isfinite(tokens[entry.name]).all()
    with np.load(run / "autoencoder.npz") as drawn:
        assert drawn["tokens"].shape == (len(zoo), 512) and drawn["held_out"].sum() == 25
        last = np.stack([tokens[entry.name][-1].numpy() for entry in zoo])
        assert np.array_equal(drawn["tokens"], last) and list(drawn["families"]) == [entry.family for entry in zoo]
        assert len(drawn["examples"]) == 5 and drawn["layer_3"].ndim == 0
        error, alone = (
            np.linalg.norm(drawn["weights_3"] - drawn[f"{name}_3"]) for name in ("reconstruction", "reference")
        )
        assert 0 < error < alone < np.linalg.norm(drawn["weights_3"]), "the code says more than the reference"
    published = load_file(shared_project.path / "artifacts/models/ModelAutoEncoder/model.safetensors")
    assert published["statistics_scale"].ne(1).any(), "what standardises tokens is published with the weights"


def test_other_tokens_losses_and_augmentation_run(shared_project):
    done = shared_project.run(
        "ModelAutoEncoder", "tokenization=flat", "hidden_dims=32", "permute=0.5", "align=off", "epochs=1",
        "plot_at_end=off", "loss=smooth_l1", "code_l1=0.01", "activation=relu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    history = json.loads((shared_project.runs("ModelAutoEncoder")[-1] / "metrics.json").read_text())["history"]
    assert len(history["val_r2"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["zoo=/nowhere"], 3, ["/nowhere/zoo.yaml"]),
        (["code_dim=64"], 2, ["code_dim = 64 is too small", "Raise code_dim or compression"]),
        (["hidden_dims="], 2, ["hidden_dims"]),
        (["test_share=0.99"], 3, ["there is none for"]),
        (["tokenization=letter"], 2, ["tokenization = 'letter': must be one of neuron, flat"]),
    ],
)
def test_mistakes_are_told(shared_project, words, code, texts):
    done = shared_project.run("ModelAutoEncoder", *words)
    assert done.returncode == code, done.stderr
    assert all(text in done.stderr for text in texts), done.stderr
    assert "Traceback" not in done.stderr


def test_a_cut_weights_file_is_told(shared_project, tmp_path):
    zoo = shutil.copytree(shared_project.path / "data/zoo", tmp_path / "zoo")
    weights = zoo / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = shared_project.run("ModelAutoEncoder", f"zoo={zoo}")
    assert done.returncode == 3
    assert str(weights) in done.stderr and "Traceback" not in done.stderr
