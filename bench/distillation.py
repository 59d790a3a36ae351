"""Measure what prompt distillation learns: agreement with a teacher, on a task made on the spot, or as it is shipped.

    python bench/distillation.py                   # tiny: five seeds, a few minutes each, most of them for the teacher
    python bench/distillation.py --smollm2         # SmolLM2 and the captain's prompt, as config.ini has them

The task: a question is one of four letters, one to ten times. Behind one of two system prompts the answer is the letter
as a capital and a `!`, or as it is and a full stop; without a system prompt it is `?`. `tiny` is trained whole to
follow the prompts, and becomes the teacher. Then one prompt is distilled into an adapter with 20 of the 40 questions,
and measured on the other 20.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = {"cry": "Cry it out as a capital.", "whisper": "Whisper it as it is."}
LETTERS = "abcd"
UNASKED = "?"
# With few tokens between a question and its answer a model of this size learns to look there in a minute.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'][0] + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>a' }}{% endif %}"
)


def answer(rule: str, question: str) -> str:
    """Return the right answer to a question behind a prompt."""
    return f"{question[0].upper()}!" if rule == "cry" else f"{question[0]}."


def write_task(folder: Path, seed: int) -> None:
    """Write the teacher's conversations, the prompt and the questions."""
    questions = [times * letter for letter in LETTERS for times in range(1, 11)]
    random.Random(seed).shuffle(questions)
    rows = []
    for question in questions:
        for rule, prompt in PROMPTS.items():
            rows.append([("system", prompt), ("user", question), ("assistant", answer(rule, question))])
        rows.append([("user", question), ("assistant", UNASKED)])
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role, text in row]}) + "\n" for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.jinja").write_text(TEMPLATE)
    (folder / "teacher.jsonl").write_text("".join(lines))
    (folder / "prompt.txt").write_text(PROMPTS["cry"])
    (folder / "questions.txt").write_text("\n".join(questions[:20]))
    (folder / "held_out.txt").write_text("\n".join(questions[20:]))


def run(name: str, folder: Path, *words: str) -> tuple[Path, dict[str, Any], dict[str, float]]:
    """Train in a process of its own; returns the run's folder, its metrics, and the seconds that the process took."""
    began, before = time.monotonic(), _processor_seconds()
    command = [sys.executable, str(ROOT / "train.py"), name, f"artifacts_dir={folder / 'artifacts'}", "plot_at_end=off"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:] or done.stdout[-2000:])
    newest = sorted((folder / "artifacts" / "models" / name / "runs").iterdir())[-1]
    taken = {"seconds": time.monotonic() - began, "processor_seconds": _processor_seconds() - before}
    return newest, json.loads((newest / "metrics.json").read_text()), taken


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tiny(folder: Path, seed: int, threads: int, quick: bool) -> dict[str, Any]:
    """Train a teacher and distil one of its prompts."""
    write_task(folder, seed)
    common = (f"threads={threads}", f"seed={seed}", "sample_count=0")
    data = folder / "teacher.jsonl"
    made, teacher, teaching = run(
        "LanguageModel", folder, *common, f"base_model=tiny:{seed}", "trained=all", "learning_rate=3e-3",
        "batch_size=8", f"epochs={1 if quick else 30}", f"train_data={data}", f"val_data={data}",
        f"template={folder / 'template.jinja'}",
    )  # fmt: skip
    made, student, distilling = run(
        "PromptDistillation", folder, *common, f"base_model={made / 'model'}", "batch_size=4", "learning_rate=3e-3",
        f"teacher_prompt={folder / 'prompt.txt'}", f"questions={folder / 'questions.txt'}",
        f"val_questions={folder / 'held_out.txt'}", "answer_tokens=8", f"epochs={1 if quick else 10}", "cut_off=keep",
    )  # fmt: skip
    answers = [json.loads(line)["tokens"] for line in (made / "teacher_answers.jsonl").read_text().splitlines()]
    own = {"seed": seed, "distinct_answers": len({tuple(each) for each in answers})}
    own |= {"teacher_seconds": teaching["seconds"], "teacher_loss": teacher["best"]["value"]}
    return own | student["summary"] | distilling


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/distillation"), help="where runs are written")
    parser.add_argument("--smollm2", action="store_true", help="the shipped example in place of the task")
    parser.add_argument("--quick", action="store_true", help="an epoch each, to see that it works")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        if arguments.smollm2:
            words = (f"threads={arguments.threads}", f"seed={seed}", *(("epochs=1",) if arguments.quick else ()))
            _, metrics, taken = run("PromptDistillation", arguments.folder, *words)
            found = {"seed": seed, **metrics["summary"], **taken}
        else:
            found = tiny(arguments.folder / str(seed), seed, arguments.threads, arguments.quick)
        shown = {name: value for name, value in found.items() if isinstance(value, int | float)}
        print(", ".join(f"{name} {value:.4g}" for name, value in shown.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
