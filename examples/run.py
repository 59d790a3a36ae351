"""Runs an example from its beginning: a model of random weights learns the form of its answers, then what is rewarded.

python examples/run.py hello
python examples/run.py guess_number epochs=2 seed=1     (other settings of the second training)

It shows the commands that it runs, each of which can be given by hand, and at the end where the report is.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

MODELS = Path("artifacts") / "models"
COMMON = "trained=all gradient_clip_value=0.5"
# Of each example how many conversations it begins with, and the settings of both trainings.
EXAMPLES = {
    "hello": (
        3000, "epochs=2 batch_size=32 learning_rate=2e-3",
        "epochs=18 tasks_per_epoch=64 group_size=4 advantage=batch steps_per_epoch=2 learning_rate=3e-4 "
        "kl_weight=0.05",
    ),
    "guess_number": (
        18000, "epochs=1 batch_size=16 learning_rate=2e-3 val_share=0.05",
        "epochs=20 tasks_per_epoch=16 group_size=8 steps_per_epoch=2 learning_rate=1e-3 kl_weight=0.005 "
        "validate_every_n_epochs=10 val_samples=4",
    ),
    "twenty_questions": (
        5000, "epochs=1 batch_size=16 learning_rate=2e-3",
        "epochs=10 tasks_per_epoch=12 group_size=8 steps_per_epoch=2 accumulation_steps=4 learning_rate=4e-4 "
        "parallel_rollouts=96 validate_every_n_epochs=10 val_samples=4",
    ),
    "calculator_tool": (
        6000, "epochs=1 batch_size=16 learning_rate=2e-3",
        "epochs=12 tasks_per_epoch=32 group_size=4 advantage=batch steps_per_epoch=2 accumulation_steps=4 "
        "learning_rate=3e-4 kl_weight=0.02",
    ),
}  # fmt: skip


def run(*words):
    """Run a command of this folder, and show it; ends with its exit code where it fails."""
    words = [str(word) for word in words]
    print("$", shlex.join(["python", *words]), flush=True)
    done = subprocess.run([sys.executable, *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def newest(trainer):
    """Return the folder of the newest run of a trainer."""
    return max((MODELS / trainer / "runs").iterdir(), key=lambda folder: folder.name)


def main():
    """Run the example that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("settings", nargs="*", metavar="name=value", help="settings of the second training")
    parser.add_argument("--quick", action="store_true", help="a try of a minute, in which nothing is learned")
    given = parser.parse_intermixed_args()
    if not Path("train.py").is_file():
        sys.exit(f"go to the folder that has train.py first: cd {Path(__file__).resolve().parent.parent}")
    name, settings = given.example, given.settings
    conversations, first, second = EXAMPLES[name]
    if given.quick:
        conversations, second = 20, f"{second} epochs=1 tasks_per_epoch=2 group_size=2"
    seed = [word for word in settings if word.startswith("seed=")]
    file = Path("artifacts") / f"{name}.jsonl"
    file.parent.mkdir(exist_ok=True)
    run("examples/warm_start.py", name, file, conversations)
    run("train.py", "LanguageModel", "base_model=tiny", f"train_data={file}", *COMMON.split(), *first.split(), *seed)
    second = {word.partition("=")[0]: word for word in [*COMMON.split(), *second.split(), *settings]}.values()
    model = newest("LanguageModel") / "model"
    run("train.py", "Agent", f"agent=examples/{name}.py:{name}", f"base_model={model}", *second)
    run("plot.py", newest("Agent"), "--report")


if __name__ == "__main__":
    main()
