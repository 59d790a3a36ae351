"""Measure the language half against the plain stack: transformers, peft and trl.

    python bench/language.py                       # the tables of docs/speed.md, in under ten minutes
    python bench/language.py --quick               # a tiny model, to see that it works
    python bench/language.py --only sampling       # without trl
    python bench/language.py --write               # put them into docs/speed.md

All in one run on one machine, interleaved; figures are medians, ratios of the same round. Where others use the machine,
`--threads 1 --processor-time` compares the processor's time instead of the clock's.
"""

import argparse
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- language: begin -->", "<!-- language: end -->"
sys.path.insert(0, str(ROOT))

from language_models import missing  # noqa: E402 - these import the project
from language_sampling import sampling_table  # noqa: E402
from language_training import training_table  # noqa: E402
from machine import installed, processor  # noqa: E402


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("training", "sampling"), help="one of the halves")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way to sample is measured")
    parser.add_argument("--steps", type=int, default=3, help="training steps that are measured at most")
    parser.add_argument("--rows", type=int, default=8, help="rows a training step")
    parser.add_argument("--new", type=int, default=32, help="tokens of each sample")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that others use: with --threads 1")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/speed.md")
    parser.add_argument("--quick", action="store_true", help="a tiny model, 1 round, 2 steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    rounds, new, steps = (1, 8, 2) if quick else (arguments.rounds, arguments.new, arguments.steps)
    lines = [*_facts(arguments, quick), ""]
    print("\n".join(lines), flush=True)
    if arguments.only != "sampling":
        lines += [f"### Fine-tuning: adapters of rank 16, {arguments.rows} rows a step", ""]
        lacking = missing("transformers", "peft", "trl", "datasets")
        lines += [_lacking("Fine-tuning", lacking)] if lacking else training_table(
            arguments.threads, steps, arguments.rows, quick, arguments.processor_time
        )  # fmt: skip
        lines += [""]
    if arguments.only != "training":
        clock = time.process_time if arguments.processor_time else time.perf_counter
        lines += [f"### Sampling: {new} new tokens a row", ""]
        lacking = missing("transformers")
        lines += [_lacking("Sampling", lacking)] if lacking else sampling_table(rounds, new, quick, clock)
    print("\n" + "\n".join(lines))
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
    return 0


def _lacking(what: str, packages: list[str]) -> str:
    return f"{what} was not compared: {', '.join(packages)} not installed (pip install {' '.join(packages)})."


def _facts(arguments: argparse.Namespace, quick: bool) -> list[str]:
    """Say what was measured where."""
    versions = installed(("torch", "transformers", "peft", "trl"))
    seconds = "processor time" if arguments.processor_time else "wall clock"
    shape = "A tiny shape" if quick else "SmolLM2-135M's shape"
    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    return [
        f"Machine: {processor()}, {platform.system()}; {threads}, {seconds}.",
        f"Versions: Python {platform.python_version()}, {', '.join(versions)}.",
        f"{shape}, random weights. Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python bench/language.py"
        f"{''.join(f' {word}' for word in sys.argv[1:])}`.",
    ]


if __name__ == "__main__":
    sys.exit(main())
