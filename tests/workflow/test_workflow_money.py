"""Money: what steps will cost, what they have cost, and that a budget is kept."""

import json
import signal

import pytest

from tests.workflow.small_workflows import begin, call, events, until

WORKFLOW = """schema: 1
name: costly
title: Two steps that cost
preset: hosted
presets:
  hosted: {model: Qwen/Qwen3-8B, examples: 1000}
  small: {model: Qwen/Qwen3-8C, examples: 10}
  here: {model: tiny, examples: 10}
steps:
  - {number: 8, name: generate, title: Generating, category: data, command: "python spend.py {examples}",
     produces: [made.txt],
     estimate: {minutes: "3", tokens_in: "{examples} * 1000", tokens_out: "{examples} * 500", megabytes: "5"}}
  - {number: 9, name: train, title: Training, category: training, command: python spend.py 1, needs: {steps: [8]},
     estimate: {minutes: "60", tokens_trained: "2000000"}}
"""
# Tells 1,000 tokens read and 500 written an example, waits at the third while a file says so.
SPEND = """import json, os, pathlib, sys, time
events = open(os.environ["WORKFLOW_EVENTS"], "a")
total = int(sys.argv[1])
for number in range(1, total + 1):
    told = {"done": number, "total": total, "unit": "examples", "tokens_in": 1000 * number, "tokens_out": 500 * number}
    events.write(json.dumps(told) + "\\n")
    events.flush()
    while number == 500 and pathlib.Path("wait").exists():
        time.sleep(0.02)
pathlib.Path("made.txt").write_text("made")
"""
# Of a thousand examples: a million tokens read, half a million written, and two million trained on.
GENERATE, TRAIN = 0.195 + 0.5 * 0.60, 2 * 0.44


@pytest.fixture
def project(tmp_path):
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "spend.py").write_text(SPEND)
    (tmp_path / ".env").write_text("TINKER_API_KEY=tml-0123456789abcdef\n")
    return tmp_path


def test_a_plan_says_what_it_will_cost_with_the_date_of_its_prices(project):
    code, out, _ = call(project, "plan", "--budget", "1")
    assert code == 0 and "3 min, 1,000,000 tokens read, 500,000 tokens written, $0.49, 5 MB" in out
    assert "60 min, 2,000,000 tokens trained on, $0.88" in out
    assert (
        "together about 63 min, 1,000,000 tokens read, 500,000 tokens written, 2,000,000 tokens trained on, $1.38"
        in out
    )
    assert "prices of 2026-10-07 for Qwen/Qwen3-8B, https://tinker-docs.thinkingmachines.ai/tinker/models/" in out
    assert "a budget of $1.00 is not enough for step 9, Training: $1.38 with it" in out
    planned = json.loads(call(project, "plan", "--json")[1])
    assert planned["together"]["dollars"] == pytest.approx(GENERATE + TRAIN) and planned["hosted"]
    assert planned["price"]["train"] == 0.44 and planned["steps"][0]["dollars"] == pytest.approx(GENERATE)


def test_a_model_without_a_price_is_told_and_has_no_budget(project):
    code, out, _ = call(project, "plan", "--preset", "small")
    assert code == 0 and "what Qwen/Qwen3-8C costs is not known: no table of prices has it; did you mean " in out
    assert "$" not in out
    code, _, err = call(project, "run", "--preset", "small", "--budget", "5")
    assert code == 2 and "--budget can't be kept: what Qwen/Qwen3-8C costs is not known" in err
    (project / "prices.yaml").write_text(
        "tables:\n  - date: 2026-11-01\n    source: our contract\n    models:\n"
        "      Qwen/Qwen3-8C: {prefill: 1, sample: 2, train: 3}\n"
    )
    code, out, _ = call(project, "plan", "--preset", "small", "--budget", "7")
    assert (
        code == 0
        and "$0.02" in out
        and "$6.02" in out
        and "prices of 2026-11-01 for Qwen/Qwen3-8C, our contract" in out
    )
    assert "a budget of $7.00 is enough" in out
    (project / "prices.yaml").write_text("tables:\n  - date: 2026-11-01\n    models: {a: {prefill: x, sampel: 2}}\n")
    code, _, err = call(project, "plan")
    assert code == 2 and "prices.yaml:2: table lacks the key source" in err and "did you mean sample?" in err
    assert "prefill is 'x'; needed is a number" in err


def test_what_was_spent_is_kept_and_a_budget_stops_before_more_is(project):
    """Also of a run that was killed: its tokens are told in a file."""
    (project / "wait").write_text("")
    process = begin(project, "run")
    seen = project / ".workflow" / "logs" / "08_generate.events.jsonl"
    until(lambda: seen.exists() and seen.read_text().count("\n") == 500)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = call(project, "run", "--budget", "0.7")
    (project / "wait").unlink()
    half = GENERATE / 2
    assert code == 1 and "Generating: can't begin" in err
    assert "$0.25 is spent, it will take about $0.49, and the budget is $0.70" in err and "--budget 1" in err
    stopped = next(event for event in events(project) if event["kind"] == "stopped")
    assert stopped["dollars"] == pytest.approx(half) and stopped["tokens_in"] == 500_000
    code, out, err = call(project, "run", "--budget", "1", "--until", "8")
    assert code == 0 and ", $0.74" in err
    code, out, _ = call(project, "plan", "--budget", "1.5")
    assert "$0.74 spent until now" in out and "a budget of $1.50 is not enough for step 9" in out


def test_a_budget_that_is_used_up_while_a_step_runs_stops_it(project):
    text = WORKFLOW.replace('tokens_in: "{examples} * 1000", tokens_out: "{examples} * 500"', 'tokens_in: "1"')
    (project / "workflow.yaml").write_text(text)
    (project / "wait").write_text("")
    code, _, err = call(project, "run", "--budget", "0.2")
    assert code == 1 and "[Step 8/2] Generating: failed" in err
    assert "the budget of $0.20 is used up: $0.2" in err and "--budget" in err and not (project / "made.txt").exists()
    assert "example 500 of 1,000" in err


def test_a_service_of_this_machine_costs_nothing(project):
    (project / ".env").unlink()
    code, out, _ = call(project, "plan", "--preset", "here")
    assert code == 0 and "$" not in out and "the service is this machine's, which costs nothing" in out
    code, out, _ = call(project, "plan")
    assert "$1.38" in out and "nothing where the service is this machine's, as it would be now" in out
    code, _, err = call(project, "run", "--budget", "0.01", TINKER_BASE_URL="http://127.0.0.1:9")
    assert code == 0 and "$" not in err
    assert all(not event.get("dollars") for event in events(project))
