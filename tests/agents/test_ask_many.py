"""Many questions to a model, as a process of their own."""

import json

from model_stub import model_stub
from warm_python import run_python

from constants import PROJECT_ROOT

CODE = (
    f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r})\n"
    "from agents.endpoint.ask_many import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


def test_a_refusal_ends_it_however_many_questions_wait(tmp_path):
    """What is under way is kept; what waits is not asked, and asked the next time."""
    (tmp_path / "ask.py").write_text(CODE)
    asked = [{"id": number, "messages": [{"role": "user", "content": "?"}], "max_tokens": 3} for number in range(40)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    with model_stub(lambda messages: "yes") as stub:
        words = ["ask.py", "--asked", "asked.jsonl", "--said", "said.jsonl", "--address", stub.address, "--model", "m"]
        stub.most = 3
        stopped = run_python(words, tmp_path, timeout=60)
        assert stopped.returncode == 1 and "refuses with status 400: enough" in stopped.stdout
        assert len((tmp_path / "said.jsonl").read_text().splitlines()) == len(stub.asked) == 3
        stub.most = None
        done = run_python(words, tmp_path, timeout=60)
    assert done.returncode == 0 and "40/40 answered" in done.stdout and len(stub.asked) == 40
