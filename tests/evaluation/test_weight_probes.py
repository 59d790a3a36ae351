"""Linear probes find what is there and nothing else; reconstruction R2 on numbers that can be checked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation.ranking.weight_probes import probe_networks, reconstruction_r2


def zoo(count: int = 60) -> tuple[list[SimpleNamespace], list[torch.Tensor]]:
    draw = np.random.default_rng(0)
    entries, features = [], []
    for number in range(count):
        rows = draw.normal(size=(3, 12))
        domain = number % 4
        rows[:, 8 + domain] += 4.0
        entries.append(
            SimpleNamespace(
                name=str(number), family=("a", "b")[number // 4 % 2], domain=f"d{domain}",
                source_accuracy=tuple(0.5 + 0.1 * rows[:, 0] - 0.05 * rows[:, 1]),
            )
        )  # fmt: skip
        features.append(torch.tensor(rows, dtype=torch.float32))
    return entries, features


def test_a_planted_signal_is_found_and_a_shuffled_one_is_not():
    entries, features = zoo()
    train, test = list(range(40)), list(range(40, 60))
    found = probe_networks(entries, features, train, test, prefix="x_")
    assert found["x_accuracy_r2"] > 0.95 and found["x_domain_accuracy"] > 0.9
    assert found["x_accuracy_r2_low"] <= found["x_accuracy_r2"] <= found["x_accuracy_r2_high"]
    order = np.random.default_rng(1).permutation(60)
    nothing = probe_networks(entries, [features[index] for index in order], train, test, prefix="x_")
    assert nothing["x_accuracy_r2"] < 0.2 and nothing["x_domain_accuracy"] < 0.5


def test_reconstruction_r2_adds_up_errors():
    entries = [SimpleNamespace(name="a", family="mlp"), SimpleNamespace(name="b", family="cnn")]
    scores = {
        "a": (torch.tensor([1.0, 2.0]), torch.tensor([4.0, 4.0])),
        "b": (torch.tensor([1.0, 0.0]), torch.tensor([2.0, 6.0])),
    }
    found = reconstruction_r2(entries, scores)
    assert found["reconstruction_r2"] == pytest.approx(1 - 4 / 16)
    assert found["reconstruction_r2_last_checkpoint"] == pytest.approx(1 - 2 / 10)
    assert found["reconstruction_r2_mlp"] == pytest.approx(1 - 3 / 8)
    assert found["reconstruction_r2_low"] <= found["reconstruction_r2"] <= found["reconstruction_r2_high"]
