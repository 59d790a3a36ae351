"""`tune.py models`: which models could be tuned for a task on this machine."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agents.models.estimate import PROCESS
from agents.models.machine import free_memory, measured_flops
from agents.models.open_model import open_models, written_on
from agents.models.recommendation import Recommendation, Wishes, recommend
from agents.task.rows import TaskRow, read_samples, write_rows
from agents.task.task_file import Task
from constants.counting import counted
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from storage.saved_run import read_metrics

_LETTERS = 3.5  # of a token, in languages written with letters
_BESIDE = 16  # tokens of a template around a question and an answer
_BATCH = 8  # rows
_TRIED = 64  # rows of a short try


class TryError(Exception):
    """A short try that failed; the text says why."""


def told_models(task: Task, languages: frozenset[str], any_licence: bool, memory: float | None) -> Iterator[str]:
    """Say which models fit a task and this machine.

    Args:
        task: what is wanted.
        languages: codes of the languages that the model must speak.
        any_licence: whether licences with terms of their own will do.
        memory: GiB that there are; None for what is free on this machine.

    Yields:
        Lines of text.
    """
    lengths = [_tokens_of(row) + task.max_tokens for row in read_samples(task.samples).rows]
    mean = sum(lengths) // len(lengths)
    there, flops = int(memory * 2**30) if memory is not None else free_memory(), measured_flops()
    wishes = Wishes(languages, any_licence, max(lengths), there)
    spoken = f", made for {', '.join(sorted(languages))}" if languages else ""
    read = f"{counted(len(lengths), 'row')} of about {mean:,} tokens, the longest {max(lengths):,}"
    speed = f"{flops / 1e9:,.0f} GFLOP/s in fp32"
    yield f"{read}; {there / 2**30:.1f} GiB are free; this machine multiplies at {speed}{spoken}"
    found = recommend(open_models(), wishes, _BATCH * mean, mean, flops)
    fitting = [one for one in found if not one.against]
    yield ""
    yield "an adapter of rank 16, batches of 8 rows; the largest that fits first:" if fitting else "none fits:"
    for one in fitting:
        yield f"  {_told(one)}"
    if len(fitting) < len(found):
        yield "not taken:" if fitting else ""
        yield from (f"  {one.model.name}: {'; '.join(one.against)}" for one in found if one.against)
    yield ""
    yield f"Facts are of {written_on()}: read a model's card before you use it. Memory and speed are estimates."
    yield "More parameters are no promise: `--try NAME` measures one on your rows."


def _tokens_of(row: TaskRow) -> int:
    letters = sum(len(str(message.get("content") or "")) for message in row.messages)
    return _BESIDE + round(letters / _LETTERS)


def _told(one: Recommendation) -> str:
    how = "fp32" if one.plan.weight_bytes == 4 else "precision = bf16"
    how += ", recompute_activations = on" if one.plan.recompute else ""
    parts = {
        "weights": one.memory.weights, "adapter with moments": one.memory.adapter,
        "a step": one.memory.step + one.memory.holes,
    }  # fmt: skip
    of = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
    spoken = " ".join(one.model.languages) or "many languages"
    what = f"{one.model.parameters / 1e9:.2f}B parameters, {one.model.licence}, {spoken}, context {one.model.context:,}"
    total = f"{(one.memory.total + PROCESS) / 2**30:.1f} GiB ({how}: {of})"
    return f"{one.model.name}: {what}; {total}, about {one.speed:,.0f} tokens/s"


def told_try(task: Task, model: str) -> Iterator[str]:
    """Tune a model for one epoch of a few rows, and say what that took and brought.

    Args:
        task: what is wanted.
        model: as `base_model` of config.ini has it.

    Yields:
        Lines of text.

    Raises:
        TryError: it can't be tuned here; the text has what was said.
    """
    rows = read_samples(task.samples).rows[:_TRIED]
    with tempfile.TemporaryDirectory() as place:
        write_rows(Path(place) / "rows.jsonl", rows)
        script = [str(PACKAGE_ROOT / "train.py")] if IS_CHECKOUT else ["-m", "menagerie", "train"]
        words = [f"base_model={model}", f"train_data={place}/rows.jsonl", f"artifacts_dir={place}", "epochs=1",
                 f"batch_size={_BATCH}", "sample_count=0", "plot_at_end=off"]  # fmt: skip
        done = subprocess.run([sys.executable, *script, "LanguageModel", *words], capture_output=True, text=True,
                              check=False)  # fmt: skip
        runs = [*Path(place).glob("models/*/runs/*")]
        if done.returncode or not runs:
            said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
            raise TryError(f"{model} can't be tuned here: {(said or done.stderr.splitlines() or ['no word'])[-1]}")
        content = read_metrics(runs[0])
    history, summary = content["history"], content["summary"]
    yield (f"{model}: one epoch of {counted(len(rows), 'row')}: val_loss {json.dumps(history['val_loss'][-1])}, "
           f"{summary['tokens_per_second']:,.0f} tokens/s, {summary['peak_memory_bytes'] / 2**30:.2f} GiB at the "
           "peak")  # fmt: skip
