"""Which models of a zoo are candidates: what a person's limits leave, before anything is loaded."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constants.counting import counted
from constants.nearest import nearest
from data.data_error import DataError

if TYPE_CHECKING:  # it needs torch, which a command line's `--help` does not
    from data.pretrained.zoo_manifest import ZooEntry

_POWERS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_LICENCES = {"apache": "apache-2.0", "apache2": "apache-2.0", "apache2.0": "apache-2.0", "bsd": "bsd-3-clause"}


def read_amount(text: str) -> float:
    """Read `30M`, `1.5B`, `8GB`, `2e7`.

    Raises:
        ValueError: it is no such amount, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmbgt]?)(i?b)?", text.strip().lower())
    if not found or not float(found[1]) > 0:
        raise ValueError(f"{text!r} must be a number above 0, such as 30M, 1.5B or 8GB")
    base = 1024.0 if (found[3] or "").startswith("i") else 1000.0
    power = _POWERS[found[2]]
    return float(found[1]) * (power if base == 1000.0 else base ** round(_log1000(power)))


def _log1000(power: float) -> float:
    return {1.0: 0, 1e3: 1, 1e6: 2, 1e9: 3, 1e12: 4}[power]


def same_licence(licence: str) -> str:
    """Write a licence as SPDX does, in lower case."""
    text = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return _LICENCES.get(text, text)


@dataclass(frozen=True)
class Limits:
    """What a model may cost; None where nothing is asked.

    Attributes:
        parameters: the most numbers that it has learnt.
        gflops: the most billions of multiply-adds for one image.
        licences: licences of which it must have one, as `same_licence` writes them; empty for any.
        memory: the most bytes that fine-tuning may take.
    """

    parameters: float | None = None
    gflops: float | None = None
    licences: tuple[str, ...] = ()
    memory: float | None = None

    def refusal(
        self, parameters: float | None, gflops: float | None, licence: str | None, memory: float | None, loaded: bool
    ) -> tuple[str, str] | None:
        """Say which limit a model is over.

        Args:
            parameters: numbers that it has learnt; None if unknown.
            gflops: billions of multiply-adds for one image; None if unknown.
            licence: licence of its weights; None if nobody says.
            memory: bytes that fine-tuning takes; None if unknown.
            loaded: whether more will not be known: what isn't known then is let through, but for the licence.

        Returns:
            The option, and what is over it; None where the model is within all limits, as far as is known.
        """
        if self.parameters is not None and parameters is not None and parameters > self.parameters:
            return "--max-params", f"{short(parameters)} parameters"
        if self.gflops is not None and gflops is not None and gflops > self.gflops:
            return "--max-gflops", f"{gflops:.3g} GFLOPs"
        if self.licences and licence is not None and same_licence(licence) not in self.licences:
            return "--licence", f"licence {licence}"
        if self.licences and licence is None and loaded:
            return "--licence", "nobody says its licence"
        if self.memory is not None and memory is not None and memory > self.memory:
            return "--memory", f"{size(memory)} for fine-tuning"
        return None


@dataclass(frozen=True)
class Refused:
    """A model that is over a limit: its name, the option, and what is over it."""

    name: str
    option: str
    reason: str


def choose_candidates(
    entries: "Sequence[ZooEntry]", names: Sequence[str], limits: Limits
) -> "tuple[list[ZooEntry], list[Refused]]":
    """Leave out what was not asked for or is over a limit, by what is known without loading.

    Args:
        entries: the zoo.
        names: models that were asked for, by name or reference; empty for all.
        limits: what a model may cost.

    Returns:
        The candidates, and those that are over a limit.

    Raises:
        DataError: a name is none of the zoo's, or nothing is left; says what to relax.
    """
    chosen = list(entries)
    if names:
        known = {key: entry for entry in entries for key in (entry.reference, entry.name)}
        if unknown := [name for name in names if name not in known]:
            near = nearest(unknown[0], list(known))
            meant = f" Did you mean {near}?" if near else ""
            raise DataError(
                f"--models: {unknown[0]} is none of the {counted(len(entries), 'model')} of the zoo.{meant}"
            )
        chosen = list({known[name].name: known[name] for name in names}.values())
    kept, refused = [], []
    for entry in chosen:
        over = limits.refusal(entry.parameters, entry.gflops, entry.licence, None, loaded=entry.source == "module")
        if over is None:
            kept.append(entry)
        else:
            refused.append(Refused(entry.name, *over))
    if not kept:
        raise DataError(nothing_left(chosen, refused))
    return kept, refused


def nothing_left(entries: "Sequence[ZooEntry]", refused: Sequence[Refused]) -> str:
    """Say that limits leave no model, and which of them to relax."""
    options = Counter(each.option for each in refused)
    told = ", ".join(f"{count} by {option}" for option, count in options.most_common())
    hints = []
    if "--max-params" in options and (known := [entry.parameters for entry in entries if entry.parameters]):
        hints.append(f"the smallest has {short(min(known))} parameters")
    if "--max-gflops" in options and (known_flops := [entry.gflops for entry in entries if entry.gflops]):
        hints.append(f"the cheapest takes {min(known_flops):.3g} GFLOPs an image")
    if "--licence" in options:
        licences = sorted({same_licence(entry.licence) for entry in entries if entry.licence})
        hints.append(f"the licences are {', '.join(licences) or 'unknown'}")
    relaxed = options.most_common(1)[0][0]
    also = f": {'; '.join(hints)}" if hints else ""
    return f"no model is left: {told} of {counted(len(entries), 'model')}{also}. Relax {relaxed}."


def short(count: float) -> str:
    """Write a count in three digits: 11.7M."""
    for power, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= power:
            value = count / power
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.3g}{letter}"
    return f"{count:.0f}"


def size(count: float) -> str:
    """Write a number of bytes in two or three digits: 1.2 GB."""
    for power, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= power:
            value = count / power
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"
