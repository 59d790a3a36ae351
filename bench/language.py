"""Measure the language half against the plain stack: transformers, peft and trl.

    python bench/language.py                       # the tables of docs/speed.md, in under ten minutes
    python bench/language.py --quick               # a tiny model, to see that it works
    python bench/language.py --only sampling       # without trl

All in one run on one machine, interleaved; figures are medians, ratios of the same round. Where others use the machine,
`--threads 1 --processor-time` compares the processor's time instead of the clock's.
"""

import argparse
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from language_sampling import sampling_table  # noqa: E402 - it imports the project
from language_training import training_table  # noqa: E402


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("training", "sampling"), help="one of the halves")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way to sample is measured")
    parser.add_argument("--steps", type=int, default=4, help="training steps that are measured at most")
    parser.add_argument("--rows", type=int, default=8, help="rows a training step")
    parser.add_argument("--new", type=int, default=32, help="tokens of each sample")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that others use: with --threads 1")
    parser.add_argument("--quick", action="store_true", help="a tiny model, 1 round, 2 steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    rounds, new, steps = (1, 8, 2) if quick else (arguments.rounds, arguments.new, arguments.steps)
    lines = [*_facts(arguments, quick), ""]
    print("\n".join(lines), flush=True)
    if arguments.only != "sampling":
        title = f"### Fine-tuning: adapters of rank 16, {arguments.rows} rows a step"
        lines += [title, "", *training_table(arguments.threads, steps, arguments.rows, quick, arguments.processor_time),
                  ""]  # fmt: skip
    if arguments.only != "training":
        clock = time.process_time if arguments.processor_time else time.perf_counter
        lines += [f"### Sampling: {new} new tokens a row", "", *sampling_table(rounds, new, quick, clock)]
    print("\n" + "\n".join(lines))
    return 0


def _facts(arguments: argparse.Namespace, quick: bool) -> list[str]:
    """Say what was measured where."""
    versions = []
    for name in ("torch", "transformers", "peft", "trl"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} is not installed")
    seconds = "processor time" if arguments.processor_time else "wall clock"
    shape = "A tiny shape" if quick else "SmolLM2-135M's shape"
    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    return [
        f"Machine: {_processor()}, {platform.system()}; {threads}, {seconds}.",
        f"Versions: Python {platform.python_version()}, {', '.join(versions)}.",
        f"{shape}, random weights. Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python bench/language.py"
        f"{''.join(f' {word}' for word in sys.argv[1:])}`.",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
