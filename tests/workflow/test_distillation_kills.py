"""Prompt distillation, killed at random instants, ends with the same files; its preset `tinker` is rehearsed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def measured(script: str, *words: str) -> dict[str, object]:
    """Run a script of bench/; returns what it found."""
    done = subprocess.run([sys.executable, str(BENCH / script), *words], text=True, capture_output=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_three_kills_of_the_steps_before_money_change_nothing():
    found = measured("workflow_kills.py", "--kills", "3", "--from", "2", "--until", "4")
    assert found["kills"] == 3 and found["differ"] == []
    assert {"data/questions.jsonl", "results/packages.json", "results/overview.json"} <= set(found["names"])


@pytest.mark.slow
def test_kills_over_all_twenty_steps_change_nothing():
    pytest.importorskip("tinker")
    found = measured("workflow_kills.py", "--kills", "8")
    assert found["kills"] == 8 and found["differ"] == []
    assert "models/composer_distilled/adapter_model.safetensors" in found["names"]


@pytest.mark.slow
def test_the_preset_tinker_makes_what_it_says_at_a_service_of_this_machine():
    pytest.importorskip("tinker")
    found = measured("workflow_tinker.py", "--answer-tokens", "2", "--batch", "2")
    assert found["checkpoints"] == [200, 400, 600, 800, 1000]
    rows = found["rows"]
    train, held_out = rows.pop("data/train.jsonl"), rows.pop("data/held_out.jsonl")
    assert rows == {
        "data/teacher.jsonl": 5000, "training_logs/metrics.jsonl": 1000, "checkpoints/checkpoints.jsonl": 5,
    }  # fmt: skip
    # Answers of two tokens are often alike, and what is audited away of these is neither trained on nor held out.
    assert train == pytest.approx(9 * held_out, rel=0.05) and 2500 < train + held_out <= 5000
