"""What trains: our trainers of pairs and of rewards, the Tinker API, trl where it is installed, and what each needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tuning_tasks import ROOT, THINGS, tune
from warm_python import run_python

pytest.importorskip("langgraph")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from agents.commands import main

TASK = """schema: 1
name: small
description: Say the letter.
model: {model}
samples: rows.jsonl
test: asked.jsonl
metric: chrf
max_tokens: 4
budget: {{rounds: 1}}
trainer: {trainer}
training: {training}
"""


def write(folder: Path, trainer: str, training: str, model: str = "tiny", pairs: bool = False) -> None:
    rows = [{"messages": [{"role": "user", "content": thing}, {"role": "assistant", "content": thing[0].upper()}]}
            | ({"rejected": "?"} if pairs else {}) for thing in THINGS]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "asked.jsonl").write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows[:4]))
    (folder / "task.yaml").write_text(TASK.format(trainer=trainer, training=training, model=model))


def make(folder: Path, trainer: str, training: str, model: str = "tiny", pairs: bool = False):
    write(folder, trainer, training, model, pairs)
    return tune("new", "task.yaml", folder=folder)


def run(folder: Path, **environment: str) -> dict:
    done = run_python([ROOT / "tune.py", "run", "--yes"], folder / "small", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(tune("status", "--json", folder=folder / "small").stdout)["state"]


@pytest.mark.slow
def test_pairs_are_learned_from(tmp_path):
    made = make(tmp_path, "dpo", "{epochs: 2, learning_rate: 3e-3, sample_count: 0, plot_at_end: off}", pairs=True)
    assert made.returncode == 0 and "12 pairs of answers" in made.stdout, made.stderr
    assert "[PreferenceTrainer]" in (tmp_path / "small" / "training.ini").read_text()
    trained = run(tmp_path)["rounds"][0]["trained"]
    assert trained["epochs"] == 2 and not trained["error"]
    assert (trained["rows"]["used"], trained["rows"]["left_out"]) == (12, 0)
    assert trained["history"]["train_margin"][1] > trained["history"]["train_margin"][0]


@pytest.mark.slow
def test_a_reward_is_learned_from(tmp_path):
    (tmp_path / "reward.py").write_text(
        "def score(answer, row):\n    return sum(each == 'e' for each in answer) / 4 + 0 * len(row['wanted'])\n"
    )
    training = "{epochs: 2, learning_rate: 3e-3, tasks_per_epoch: 4, group_size: 4, sample_count: 0, plot_at_end: off}"
    made = make(tmp_path, "{kind: agent, reward: reward.py:score}", training)
    assert made.returncode == 0, made.stderr
    copy = (tmp_path / "small" / "task.yaml").read_text()
    assert 'reward: "reward.py:score"' in copy and (tmp_path / "small" / "reward.py").exists()
    trained = run(tmp_path)["rounds"][0]["trained"]
    assert trained["epochs"] == 2 and not trained["error"] and len(trained["history"]["train_reward"]) == 2


def test_what_a_trainer_needs_is_said_when_the_folder_is_made(tmp_path, capsys):
    for trainer, training, told in (
        ("dpo", "{}", "has no pair of answers, which this trainer learns from"),
        ("{kind: dqo}", "{}", "did you mean dpo?"),
        ("{kind: trl, method: grpo}", "{}", "needs `reward: FILE.py:FUNCTION`"),
        ("{kind: agent, reward: nothing.py:score}", "{}", "there is no file"),
        ("{kind: agent, reward: score}", "{}", "it is FILE.py:FUNCTION"),
        ("{kind: sft, reward: rows.jsonl}", "{}", "has no use with sft"),
        ("dpo", "{betta: 0.2}", "beta"),
        ("dpo", "{}\ngenerator: {source: templates}", "learns from pairs"),
    ):
        write(tmp_path, trainer, training, pairs="betta" in training)
        code = main(["new", str(tmp_path / "task.yaml"), str(tmp_path / "small")])  # in one process: there are many
        said = capsys.readouterr().err
        assert code == 2 and told in said, (trainer, said)
        assert not (tmp_path / "small").exists()


@pytest.fixture
def service(tmp_path):
    words = [sys.executable, str(ROOT / "serve.py"), "--model", "tiny", "--port", "0", "--folder", str(tmp_path / "s")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "http://127.0.0.1:" in line:
            yield "http://127.0.0.1:" + line.split("http://127.0.0.1:")[1].split()[0].rstrip("/,.;")
            break
    process.terminate()
    process.communicate()


@pytest.mark.slow
def test_the_tinker_api_trains_answers_and_exports(tmp_path, service):
    pytest.importorskip("tinker")
    made = make(tmp_path, f"{{kind: tinker, address: '{service}'}}", "{epochs: 4, learning_rate: 5e-3, batch_size: 6}")
    assert made.returncode == 0, made.stderr
    state = run(tmp_path, TINKER_API_KEY="tml-local")
    trained = state["rounds"][0]["trained"]
    losses = trained["history"]["train_loss"]
    assert trained["epochs"] == 4 and len(losses) == 4 and losses[3] < losses[0]
    # Stopped half way, it went on from the service's checkpoint, with the optimizer's state.
    kept = json.loads((tmp_path / "small" / trained["run"] / "metrics.json").read_text())
    assert kept["state"] == "finished" and kept["path"].startswith("tinker://") and kept["rows"]["used"] == 12
    assert state["best"] == 1 and (tmp_path / "small" / "model" / "adapter_model.safetensors").exists()


def test_a_service_that_is_not_there_is_told(tmp_path):
    pytest.importorskip("tinker")
    make(tmp_path, "{kind: tinker, address: 'http://127.0.0.1:9'}", "{}")
    done = tune("run", "--yes", folder=tmp_path / "small")
    assert done.returncode == 3 and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr


TRL = os.environ.get("TRL_PYTHON", sys.executable)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_trl_trains(tmp_path, method):
    if subprocess.run([TRL, "-c", "import trl"], capture_output=True, check=False).returncode:
        pytest.skip("no trl: TRL_PYTHON names the Python of an environment that has it")
    from llm.base_model import load
    from llm.model_export import export_model

    base = load("tiny")
    export_model(tmp_path / "tiny", base, None, {})
    (tmp_path / "reward.py").write_text("def score(answer, row):\n    return float(answer.count('e'))\n")
    reward = ", reward: reward.py:score" if method == "grpo" else ""
    training = "{epochs: 4, learning_rate: 1e-3, batch_size: 4, max_tokens: 8}"
    trainer = f"{{kind: trl, method: {method}, python: {TRL}{reward}}}"
    made = make(tmp_path, trainer, training, str(tmp_path / "tiny"), pairs=method == "dpo")
    assert made.returncode == 0, made.stderr
    trained = run(tmp_path)["rounds"][0]["trained"]
    assert trained["epochs"] == 4 and not trained["error"], trained
    assert len(trained["history"]["train_loss"]) == 4
    assert (tmp_path / "small" / trained["run"] / "model" / "config.json").exists()
