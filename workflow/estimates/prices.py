"""What a million tokens of a model cost: a table with its date and source, and a project's own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.definition.nodes import Node, Problems, root_of

FILE = "prices.yaml"
"""Name of the tables, here and in a project that has its own."""
_MILLION = 1e6
_KINDS = ("prefill", "sample", "train")


class PriceError(Exception):
    """A project's table of prices that can't be used; the text has a line for each mistake."""


@dataclass(frozen=True)
class Price:
    """What a model costs.

    Attributes:
        model: its name.
        prefill: dollars for a million tokens that it reads.
        sample: dollars for a million tokens that it writes.
        train: dollars for a million tokens that it is trained on.
        date: day of the table.
        source: where it is from.
    """

    model: str
    prefill: float
    sample: float
    train: float
    date: str
    source: str

    def dollars(self, counts: Mapping[str, float]) -> float:
        """Return what tokens cost.

        Args:
            counts: tokens_in, tokens_out and tokens_trained; one that isn't there is none.
        """
        millions = {name: counts.get(name, 0.0) / _MILLION for name in ("tokens_in", "tokens_out", "tokens_trained")}
        return (
            self.prefill * millions["tokens_in"]
            + self.sample * millions["tokens_out"]
            + self.train * millions["tokens_trained"]
        )


def read_prices(folder: Path) -> dict[str, Price]:
    """Return the prices by model; those of a project's own prices.yaml go before ours.

    Args:
        folder: the project's folder.

    Raises:
        PriceError: the project has a prices.yaml that can't be used.
    """
    found: dict[str, Price] = {}
    for path in (folder / FILE, Path(__file__).with_name(FILE)):
        if path.exists():
            found = {**_tables(path), **found}
    return found


def _tables(path: Path) -> dict[str, Price]:
    problems = Problems(path)
    root = root_of(path, problems)
    top = Node(root, problems, path.name).mapping(("tables",), needed=("tables",)) if root is not None else None
    found: dict[str, Price] = {}
    for table in top["tables"].items("table") if top and "tables" in top else []:
        keys = table.mapping(("date", "source", "models"), needed=("date", "source", "models")) or {}
        date, source = (keys[name].text() or "" if name in keys else "" for name in ("date", "source"))
        for model, node in (keys["models"].mapping() or {}).items() if "models" in keys else ():
            kinds = node.mapping(_KINDS, needed=_KINDS) or {}
            values = [kinds[kind].number(above=-1e-12) for kind in _KINDS if kind in kinds]
            numbers = [value for value in values if value is not None and math.isfinite(value)]
            if len(numbers) == len(_KINDS):
                found.setdefault(model, Price(model, numbers[0], numbers[1], numbers[2], date, source))
    if root is None and not problems.texts:
        problems.add(0, "it is empty; needed is tables")
    if problems.texts:
        raise PriceError("\n".join(problems.sorted()))
    return found
