"""Which runs are part of something larger: members of a group of seeds, trials of a sweep."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from storage.segments import GROUP, SWEEP, read_segments

_NAMES = {GROUP: "a group of seeds", SWEEP: "a sweep"}


def parts_of_others(artifacts_dir: Path, runs: Iterable[Path]) -> dict[str, str]:
    """Return the runs that are part of a group of seeds or a sweep: what each is part of, by its id.

    Args:
        artifacts_dir: folder of all runs and published models.
        runs: folders of one model's runs.
    """
    runs = list(runs)
    found = {}
    for path in runs:
        part = read_segments(path).part_of
        if part in _NAMES:
            found[path.name] = _NAMES[part]
    # Their own files name them, and know of runs from before runs said so themselves.
    for model in {path.parent.parent for path in runs}:
        for file in model.glob("seeds/*/seeds.json"):
            found |= dict.fromkeys(_ids(file, "members"), f"the group {file.parent.name}")
        for file in artifacts_dir.glob(f"sweeps/{model.name}/*/trials.json"):
            found |= dict.fromkeys(_ids(file, "trials"), f"the sweep {file.parent.name}")
    return found


def _ids(file: Path, rows: str) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # a damaged file is told where it is used
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        yield from [row["run"] for row in content.get(rows, []) if isinstance(row.get("run"), str)]
