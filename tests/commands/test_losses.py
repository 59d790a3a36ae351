"""`train.py --losses`: the loss of each row and word, and which words of a prompt lower it."""

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest
from warm_python import run_python

pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = {"up": "yes", "dn": "no", "  ": "?"}
NAMES, ENDS = ("ant", "bee", "cat", "dog", "   "), ("so", "  ")


def train(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_python([ROOT / "train.py", *words], folder)


def written(path: Path, rows: list[tuple[str, str]]) -> None:
    chats = [[{"role": "user", "content": asked}, {"role": "assistant", "content": answer}] for asked, answer in rows]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_losses_of_a_run_and_what_lowers_them(tmp_path):
    """One word of the prompt decides the answer: a blank in its place raises the loss most, and it scores highest."""
    written(tmp_path / "rows.jsonl", [(f"{name} {sign} {end}", ANSWERS[sign]) for name, sign, end in
                                      product(NAMES, ANSWERS, ENDS)])  # fmt: skip
    settings = ("train_data=rows.jsonl", "val_data=rows.jsonl", "base_model=tiny", "artifacts_dir=art", "epochs=14",
                "learning_rate=3e-3", "batch_size=4", "sample_count=1")  # fmt: skip
    done = train("LanguageModel", *settings, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "art" / "models" / "LanguageModel" / "runs").iterdir()
    best = json.loads((run / "metrics.json").read_text())["best"]

    done = train("--losses", str(run), "data=rows.jsonl", "--out", "losses.jsonl", "compare=on", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # The validation loss of the best weights, over the same rows, is what the trainer wrote.
    assert told["rows"] == 30 and told["loss"] == pytest.approx(best["value"], abs=1e-4)
    assert told["template"] == "the model's own"
    found = rows_of(tmp_path / "losses.jsonl")
    assert [one["tokens"] for one in found[:3:2]] == [4, 3]  # the letters of yes and no, and the end of the turn
    assert all(one["base_loss"] > 3 > one["loss"] for one in found)

    blanks = [[f"{name} {sign} so", f"{' ' * 3} {sign} so", f"{name} {' ' * 2} so", f"{name} {sign} {' ' * 2}"]
              for name in NAMES[:2] for sign in ("up", "dn")]  # fmt: skip
    written(tmp_path / "blanks.jsonl", [(text, ANSWERS[texts[0].split()[1]]) for texts in blanks for text in texts])
    done = train("--losses", str(run), "data=blanks.jsonl", "--out", "losses.jsonl", "attribution=32", folder=tmp_path)
    assert done.returncode == 2 and "is there already; --force replaces it" in done.stderr
    done = train("--losses", str(run), "data=blanks.jsonl", "--out", "losses.jsonl", "attribution=32",
                 "attention=on", "--force",
                 folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows_of(tmp_path / "losses.jsonl")
    for whole, *without in zip(*(found[at::4] for at in range(4)), strict=True):
        raised = [one["loss"] - whole["loss"] for one in without]
        assert raised.index(max(raised)) == 1 and max(raised) > 0.5
        words = [one for one in whole["words"] if one["kind"] == "asked"]
        scores = [one["lowers"] for one in words]
        assert len(words) == 3 and scores.index(max(scores)) == 1, words
        assert sum(scores) == pytest.approx(whole["lowered"], rel=0.05)
        assert sum(one["attention"] for one in whole["words"]) == pytest.approx(1, abs=1e-4)
        answer = [one for one in whole["words"] if one["kind"] == "answer"]
        assert "".join(one["text"] for one in answer) in ("yes<|im_end|>", "no<|im_end|>")
        assert sum(one["loss"] for one in answer) == pytest.approx(whole["loss"] * whole["tokens"], abs=1e-4)
    nothing = train("--losses", str(run), folder=tmp_path)
    assert nothing.returncode == 2 and "data=rows.jsonl --out losses.jsonl" in nothing.stderr
