"""The generator by curator speaks as `tune.py` wants; curator itself is stood in for, as it needs a network."""

import json
import os
import subprocess
import sys

from tuning_tasks import ROOT

STAND_IN = """
from types import SimpleNamespace

class LLM:
    def __init__(self, model_name):
        self.model_name = model_name

    def __call__(self, rows):
        print("a progress bar")
        said = [self.parse(row, f"{self.model_name} on {self.prompt(row)[1]['content']}") for row in rows]
        return SimpleNamespace(dataset=said)
"""


def test_what_curator_says_comes_back_a_line_for_each_request(tmp_path):
    (tmp_path / "bespokelabs").mkdir()
    (tmp_path / "bespokelabs" / "__init__.py").write_text("")
    (tmp_path / "bespokelabs" / "curator.py").write_text(STAND_IN)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "four rows"}]
    asked = "".join(json.dumps({"id": f"{number}", "messages": messages}) + "\n" for number in range(2))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "tasks" / "curator_generator.py")], input=asked, text=True,
        capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path), "CURATOR_MODEL": "large"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [{"id": "0", "text": "large on four rows"}, {"id": "1", "text": "large on four rows"}]
    assert "a progress bar" in done.stderr
