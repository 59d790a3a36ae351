"""`train.py --losses`: the loss of each row and word, and which words of a prompt lower it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


def train(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(name: str, sign: str) -> str:
    answer = "yes" if sign == "up" else "no"
    chat = [{"role": "user", "content": f"{name} {sign} so"}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": chat}) + "\n"


def test_losses_of_a_run_and_what_lowers_them(tmp_path):
    """One word of the prompt decides the answer: its removal raises the loss most, and its score is the highest."""
    (tmp_path / "rows.jsonl").write_text("".join(row(name, sign) for name in NAMES for sign in ("up", "down")))
    settings = ("train_data=rows.jsonl", "val_data=rows.jsonl", "base_model=tiny", "artifacts_dir=art", "epochs=12",
                "learning_rate=3e-3", "batch_size=4", "sample_count=1")  # fmt: skip
    done = train("LanguageModel", *settings, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "art" / "models" / "LanguageModel" / "runs").iterdir()
    best = json.loads((run / "metrics.json").read_text())["best"]
    asked = [[f"{name} {sign} so", f"{name} so", f"{sign} so", f"{name} {sign}"] for name in NAMES[:2]
             for sign in ("up", "down")]  # fmt: skip
    answers = ["yes" if " up " in f" {texts[0]} " else "no" for texts in asked]
    (tmp_path / "less.jsonl").write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}) + "\n"
        for texts, answer in zip(asked, answers, strict=True) for text in texts))  # fmt: skip

    done = train("--losses", str(run), "data=rows.jsonl", "--out", "losses.jsonl", "compare=on", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # The validation loss of the best weights, over the same rows, is what the trainer wrote.
    assert told["rows"] == 16 and told["loss"] == pytest.approx(best["value"], abs=1e-4)
    assert told["template"] == "the model's own"
    found = rows_of(tmp_path / "losses.jsonl")
    assert [one["tokens"] for one in found[:2]] == [4, 3]  # the letters of yes and no, and the end of the turn
    assert all(one["base_loss"] > 3 > one["loss"] for one in found)

    done = train("--losses", str(run), "data=less.jsonl", "--out", "less_losses.jsonl", "attribution=32",
                 folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows_of(tmp_path / "less_losses.jsonl")
    for whole, *without in zip(*(found[at::4] for at in range(4)), strict=True):
        words = [one for one in whole["words"] if one["kind"] == "asked"]
        raised = [one["loss"] - whole["loss"] for one in (without[1], without[0], without[2])]  # of name, sign, so
        assert raised.index(max(raised)) == 1, "the sign decides"
        scores = [one["lowers"] for one in words]
        assert [one["text"].strip() for one in words][1] in ("up", "down")
        assert scores.index(max(scores)) == 1
        assert sum(scores) == pytest.approx(whole["lowered"], abs=0.02 + 0.05 * abs(whole["lowered"]))
        answer = [one for one in whole["words"] if one["kind"] == "answer"]
        assert "".join(one["text"] for one in answer) in ("yes<|im_end|>", "no<|im_end|>")
        assert sum(one["loss"] for one in answer) == pytest.approx(whole["loss"] * whole["tokens"], abs=1e-4)

    again = train("--losses", str(run), "data=rows.jsonl", "--out", "losses.jsonl", folder=tmp_path)
    assert again.returncode == 2 and "is there already; --force replaces it" in again.stderr
    nothing = train("--losses", str(run), folder=tmp_path)
    assert nothing.returncode == 2 and "data=rows.jsonl --out losses.jsonl" in nothing.stderr
