"""Measure the language half against the plain stack: transformers, peft and trl.

    python bench/language.py                       # all that is here
    python bench/language.py --quick               # a tiny model, to see that it works

All in one run on one machine, interleaved; figures are medians, ratios of the same round.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from language_sampling import sampling_table  # noqa: E402 - it imports the project


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--new", type=int, default=64, help="tokens of each sample")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that others use: with --threads 1")
    parser.add_argument("--quick", action="store_true", help="a tiny model and 1 round")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = 1 if arguments.quick else arguments.rounds
    clock = time.process_time if arguments.processor_time else time.perf_counter
    lines = sampling_table(rounds, 8 if arguments.quick else arguments.new, arguments.quick, clock)
    seconds = "processor time" if arguments.processor_time else "wall clock"
    print(f"\nSmolLM2-135M's shape, fp32, {arguments.threads} threads, {seconds}, median of {rounds} rounds.\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
