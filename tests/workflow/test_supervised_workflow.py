"""The workflow that ships: written, planned and, in `make test-all`, killed and still ending with the same weights."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow.definition.reading import read_definition
from workflow.lint.linting import lint_paths
from workflow.new_project import TEMPLATES, template_names

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24


def workflow(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(ROOT / "workflow.py"), *words], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def call(*words: str, cwd: Path) -> tuple[int, str]:
    process = workflow(*words, cwd=cwd)
    out, err = process.communicate()
    return process.returncode, out + err


def test_templates_are_workflows_and_their_scripts_have_nothing_to_be_told():
    assert template_names() == ["prompt_distillation", "supervised"]
    for name in template_names():
        definition = read_definition(TEMPLATES / name / "workflow.yaml")
        scripts = {step.command[1] for step in definition.steps if step.command}
        assert scripts <= {path.name for path in (TEMPLATES / name).glob("*.py")}
        problems, refused, _ = lint_paths([TEMPLATES / name])
        # An evaluation doesn't go on training, so it needs no optimizer.
        assert not refused and not [one for one in problems if one.rule.level == "error"]


def test_a_project_is_written_once_and_planned(tmp_path):
    code, said = call("new", "supervised", "mine", cwd=tmp_path)
    assert code == 0 and "06_train.py" in said and f"{ROOT / 'workflow.py'} plan mine" in said
    assert (tmp_path / "mine" / "data" / "examples.jsonl").exists()
    code, said = call("new", "supervised", "mine", cwd=tmp_path)
    assert code == 2 and "mine is there already" in said
    code, said = call("new", "superviced", "other", cwd=tmp_path)
    assert code == 2 and "did you mean supervised?" in said
    code, said = call("plan", "mine", "--preset", "tinker", cwd=tmp_path)
    assert code == 0 and "8 steps to do" in said and "512,000 tokens trained on" in said


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    """A run that is killed again and again ends with the weights of one that isn't."""
    pytest.importorskip("tinker")
    digests = []
    for name in ("whole", "killed"):
        assert call("new", "supervised", name, cwd=tmp_path)[0] == 0
        file = tmp_path / name / "workflow.yaml"
        text = file.read_text().replace("steps: 120, batch: 16", f"steps: {STEPS}, batch: 4")
        file.write_text(text.replace("every: 40, falls: 0.5", "every: 6, falls: 0.1"))
        draws = random.Random(0)
        for _ in range(4 if name == "killed" else 0):
            process = workflow("run", name, cwd=tmp_path)
            logs = tmp_path / name / ".workflow" / "logs"
            begun = len(list(logs.glob("*.log")))
            while process.poll() is None and len(list(logs.glob("*.log"))) <= begun:
                time.sleep(0.05)
            time.sleep(8 * draws.random())
            process.send_signal(signal.SIGKILL)
            process.communicate()
        code, said = call("run", name, cwd=tmp_path)
        assert code == 0 and "all 8 steps done" in said, said
        rows = [json.loads(line) for line in (tmp_path / name / "results" / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        weights = (tmp_path / name / "model" / "adapter_model.safetensors").read_bytes()
        digests.append((hashlib.sha256(weights).hexdigest(), [row["loss"] for row in rows]))
    assert digests[0] == digests[1]
