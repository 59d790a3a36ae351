"""`--export`: what a run has trained is written once more, also of a run whose disk was full at its end."""

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from llm.base_model import load
from llm.saved_model import open_folder
from model.causal_lm import PackedRows
from model.lora import AdapterRows

TESTS = Path(__file__).resolve().parent.parent
# Runs train.py on a disk that is full for files whose path has PART in it.
FILLING = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from system_calls import FullDisk, between_calls
from commands.command_line import main

with between_calls(FullDisk(100, os.environ["PART"])):
    code = main()
sys.exit(code)
"""
WORDS = ("LanguageModel", "plot_at_end=off", "base_model=tiny", "epochs=2", "learning_rate=1e-2", "lora_rank=4")


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "filling.py").write_text(FILLING)
    rows = [{"prompt": f"{number}?", "completion": f"{number * number}"} for number in range(8)]
    (shared_project.path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(shared_project)
    assert done.returncode == 0, done.stderr
    return shared_project


def train(lab, *words: str, script: str = "train.py", part: str = ""):
    return lab.run(*WORDS, "train_data=pairs.jsonl", "sample_count=1", *words, script=script, PART=part)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_adapter_is_written_as_the_run_wrote_it_and_merged_later(lab):
    run = lab.runs("LanguageModel")[0]
    before = files(run / "adapter")
    shutil.rmtree(run / "adapter")
    done = lab.run("LanguageModel", "--export")
    assert done.returncode == 0 and done.stdout == f"the adapter is in {run / 'adapter'}\n", done.stderr
    after = files(run / "adapter")
    cards = [content.pop("README.md").decode() for content in (before, after)]
    assert after == before
    digest = json.loads((run / "metrics.json").read_text())["summary"]["train_data"]["sha256"]
    for card in cards:
        assert f"SHA-256 {digest} |" in card and "| learning rate | 0.01 |" in card and "| perplexity | " in card
    done = lab.run("--export", run.name, "merge=on", "--out", "whole")
    assert done.returncode == 0, done.stderr
    merged, apart = load(str(lab.path / "whole")).model, open_folder(run / "adapter", "cpu")
    tokens, rows = torch.arange(40, 60), PackedRows.of([20])
    chosen = AdapterRows((apart.adapter,), (20,))
    ours = apart.base.model.logits(apart.base.model.hidden(tokens, rows, chosen), chosen)
    assert (merged.logits(merged.hidden(tokens, rows)) - ours).abs().max() < 1e-5
    assert "in transformers" not in (lab.path / "whole" / "README.md").read_text()
    assert "AutoModelForCausalLM.from_pretrained(folder)" in (lab.path / "whole" / "README.md").read_text()


def test_the_report_has_the_answers_the_data_and_what_training_took(lab):
    run = lab.runs("LanguageModel")[0]
    done = lab.run(run.name, "--report", script="plot.py")
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text()
    summary = json.loads((run / "metrics.json").read_text())["summary"]
    (sample,) = json.loads((run / "samples.json").read_text())
    assert f"<dt>tokens/s</dt><dd>{round(summary['tokens_per_second']):,}<small>in training" in page
    assert f"<dt>peak memory</dt><dd>{summary['peak_memory_bytes'] / 2**20:,.0f} MiB" in page
    assert f'<pre class="wrapped">{sample["prompt"]}</pre>' in page and summary["train_data"]["sha256"] in page
    assert "&#x27;sha256&#x27;" not in page, "an account is no result to be printed as Python has it"


def test_a_disk_that_is_full_at_the_end_loses_nothing(lab):
    whole = files(lab.runs("LanguageModel")[0] / "adapter")
    for part, words, written in (
        ("/adapter/", (), ""), ("/merged/", ("merge=on",), " Written: adapter/."),
        ("samples.json", (), " Written: adapter/."), ("/model/", ("trained=all",), ""),
    ):  # fmt: skip
        done = train(lab, *words, script="filling.py", part=part)
        run = lab.runs("LanguageModel")[-1]
        assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
        first, second = done.stderr.splitlines()
        assert first.startswith(f"error: cannot write {run}") and "No space left on device" in first
        assert second.startswith(f"The training is done, and its weights are in {run}/model.safetensors.{written} ")
        assert f"python train.py --export {run}` writes the export when there is room" in second
        assert ("merge=on` the merged model" in second) == ("merge=on" in words)
        assert json.loads((run / "metrics.json").read_text())["state"] == "failed"
        assert not list(run.rglob(".*"))
        again = lab.run("--export", str(run), *(word for word in words if word == "merge=on"))
        assert again.returncode == 0, again.stderr
        if "trained=all" in words:
            assert load(str(run / "model")).source == str(run / "model")
        elif not words:
            found = files(run / "adapter")
            assert found["adapter_model.safetensors"] == whole["adapter_model.safetensors"]
    gone_on = lab.run("LanguageModel", "--resume")  # the other door: what is missing is written then
    assert gone_on.returncode == 0 and (run / "samples.json").is_file(), gone_on.stderr


def test_what_can_not_be_exported(lab):
    run = lab.runs("LanguageModel")[0]
    (lab.path / "other").mkdir()
    (lab.path / "other" / "mine.txt").write_text("mine")
    for words, code, told in (
        (("--export", "tiny"), 3, "tiny is a base model: there is nothing to export of a training"),
        (("--export", f"{run}/adapter"), 2, f"{run}/adapter is a folder, not a run: say where to, --out FOLDER"),
        (("--export", run.name, "--out", "other"), 2, "with other things in it: give another folder, or --force"),
        (("--export", run.name, "--out", "pairs.jsonl"), 2, "--out pairs.jsonl is a file: give another folder"),
        (("--export", run.name, "--out", f"{run}", "--force"), 2, "is the run itself"),
        (("--export", run.name, "merged=on"), 2, "unknown key 'merged'; did you mean 'merge'?"),
        (("--export", "nosuch"), 2, "there is no run 'nosuch'"),
    ):  # fmt: skip
        done = lab.run(*words)
        assert done.returncode == code and told in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert [path.name for path in (lab.path / "other").iterdir()] == ["mine.txt"]
