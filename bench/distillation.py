"""Measure what prompt distillation learns: agreement with a teacher, on a task made on the spot, or as it is shipped.

    python bench/distillation.py                   # tiny: five seeds, a few minutes each, most of them for the teacher
    python bench/distillation.py --smollm2         # SmolLM2 and the captain's prompt, as config.ini has them

The task: a question is three digits. Behind one of three system prompts the answer is each digit plus 1, plus 5, or
the digits backwards; without a system prompt it is `???`. `tiny` is trained whole to follow the prompts (on 600 of the
1,000 questions), and becomes the teacher. Then one prompt is distilled into an adapter, with 300 of the 600, and
measured on 200 of the 400 that neither has seen.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = {
    "plus one": "You are the clerk of the ministry of numbers. Answer a number with a number of as many digits, each "
                "of which is one more than that of the question; a nine becomes a zero.",
    "plus five": "You are the keeper of the lighthouse. Whoever signals digits to you gets back as many, each five "
                 "higher than the one that came; above nine the count begins again at zero.",
    "backwards": "You are a mirror in an old hall. Digits that are held up to you are to be shown in the other order, "
                 "the last one first and the first one last, and none is changed.",
}  # fmt: skip
UNASKED = "???"


def answer(rule: str, question: str) -> str:
    """Return the right answer to a question behind a prompt."""
    if rule == "backwards":
        return question[::-1]
    more = 1 if rule == "plus one" else 5
    return "".join(str((int(digit) + more) % 10) for digit in question)


def write_task(folder: Path, seed: int) -> None:
    """Write the teacher's conversations, the prompt and the questions."""
    draw = random.Random(seed)
    questions = [f"{number:03}" for number in range(1000)]
    draw.shuffle(questions)
    known, unseen = questions[:600], questions[600:]
    rows = []
    for question in known:
        for rule, prompt in PROMPTS.items():
            rows.append([("system", prompt), ("user", question), ("assistant", answer(rule, question))])
        rows.append([("user", question), ("assistant", UNASKED)])
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role, text in row]}) + "\n" for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.jsonl").write_text("".join(lines))
    (folder / "prompt.txt").write_text(PROMPTS["plus one"])
    (folder / "questions.txt").write_text("\n".join(known[:300]))
    (folder / "held_out.txt").write_text("\n".join(unseen[:200]))


def run(name: str, folder: Path, *words: str) -> tuple[Path, dict[str, Any], float]:
    """Train in a process of its own; returns the run's folder, its metrics, and the seconds that the process took."""
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), name, f"artifacts_dir={folder / 'artifacts'}", "plot_at_end=off"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:] or done.stdout[-2000:])
    newest = sorted((folder / "artifacts" / "models" / name / "runs").iterdir())[-1]
    return newest, json.loads((newest / "metrics.json").read_text()), time.monotonic() - began


def tiny(folder: Path, seed: int, threads: int, quick: bool) -> dict[str, Any]:
    """Train a teacher and distil one of its prompts."""
    write_task(folder, seed)
    common = (f"threads={threads}", f"seed={seed}", "sample_count=0")
    made, teacher, teaching = run(
        "LanguageModel", folder, *common, f"base_model=tiny:{seed}", "trained=all", "learning_rate=2e-3",
        f"epochs={1 if quick else 12}", "batch_size=32", f"train_data={folder / 'teacher.jsonl'}", "val_share=0.02",
    )  # fmt: skip
    _, student, distilling = run(
        "PromptDistillation", folder, *common, f"base_model={made / 'model'}",
        f"teacher_prompt={folder / 'prompt.txt'}",
        f"questions={folder / 'questions.txt'}", f"val_questions={folder / 'held_out.txt'}", "answer_tokens=8",
        f"epochs={1 if quick else 10}", "batch_size=16", "learning_rate=2e-3", "cut_off=keep", "compared_questions=200",
    )  # fmt: skip
    return {
        "seed": seed, "teaching": teaching, "distilling": distilling, "teacher_loss": teacher["best"]["value"],
        **student["summary"],
    }  # fmt: skip


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
            _, metrics, seconds = run("PromptDistillation", arguments.folder, *words)
            found = {"seed": seed, "seconds": seconds, **metrics["summary"]}
        else:
            found = tiny(arguments.folder / str(seed), seed, arguments.threads, arguments.quick)
        shown = {name: value for name, value in found.items() if isinstance(value, int | float)}
        print(", ".join(f"{name} {value:.4g}" for name, value in shown.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
