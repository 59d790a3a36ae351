"""What the benches of trained agents share: a service of their own, intervals over seeds, and tables in pages."""

import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Yield a service on a port that is free, and its address; it ends with the block.

    Args:
        folder: where its log and its store are.
        words: options of serve.py, such as --model.
    """
    log = folder / "log"
    with log.open("w") as stream:
        service = subprocess.Popen(
            [sys.executable, "serve.py", *words, "--port", "0", "--folder", str(folder / "store")],
            cwd=ROOT, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        while (address := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            if service.poll() is not None:
                sys.exit(f"the service ended:\n{log.read_text()}")
            time.sleep(0.2)
        yield service, address.group()
    finally:
        service.terminate()
        service.wait()


def half_interval(values: Sequence[float]) -> float:
    """Return half of Student's 95 % interval of the mean of two values or more."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def put_into(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines between the comments `name: begin` and `name: end` of a page, in place of what is there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    if not found or end not in rest:
        sys.exit(f"{page} has no {begin} with {end} behind it: put both where the tables belong")
    page.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.partition(end)[2]}")
