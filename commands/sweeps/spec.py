"""What a sweep file asks for, checked to the last key before torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from commands.sweeps.yaml_file import Text, read_yaml
from config import ConfigError, ConfigParser
from config.config_classes import key_types
from config.config_values import BadValue, read_value
from config.config_wording import is_union, members_of, must_be, split_hint, word
from constants.metrics import direction_of
from constants.nearest import nearest

_KEYS = ("name", "trials", "timeout_minutes", "sampler", "pruner", "prune_after_epochs", "seed", "metric", "direction",
         "settings", "space")  # fmt: skip
_FIXED = ("artifacts_dir",)  # trials of a sweep must all be in one place
_FORMS = "a list of choices, {range: [low, high]}, {range: [low, high], step: s} or {log: [low, high]}"


@dataclass(frozen=True)
class Dimension:
    """What a key may be.

    Attributes:
        kind: way of choosing: choices; range, all numbers alike; log, all orders of magnitude alike.
        choices: values to choose from, as ini texts.
        low: smallest number of the range, of the key's type.
        high: largest number of the range, of the key's type.
        step: distance between neighbouring numbers; None takes every number (1 apart for integers).
        whole: whether the numbers are integers.
    """

    kind: Literal["choices", "range", "log"]
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    whole: bool = False

    def grid(self) -> list[Any] | None:
        """Return all values, None where there is no end of them."""
        if self.kind == "choices":
            return list(self.choices)
        if self.kind == "log" or (self.step is None and not self.whole):
            return None
        step = self.step or 1
        return [self.low + number * step for number in range(int((self.high - self.low) / step + 1e-9) + 1)]


@dataclass(frozen=True)
class SweepSpec:
    """A sweep file. The names are its keys; docs/sweeps.md says what they mean."""

    name: str
    trials: int
    timeout_minutes: float | None
    sampler: Literal["tpe", "random", "grid"]
    pruner: Literal["median", "hyperband", "none"]
    prune_after_epochs: int | None
    seed: int
    metric: str
    direction: Literal["minimize", "maximize"]
    settings: dict[str, str] = field(default_factory=dict)
    space: dict[str, Dimension] = field(default_factory=dict)


_PLAIN: dict[str, Any] = {  # keys with one value: type, and default as text
    "name": (str, ""), "trials": (int, ""), "timeout_minutes": (float | None, "none"),
    "sampler": (Literal["tpe", "random", "grid"], "tpe"), "pruner": (Literal["median", "hyperband", "none"], "median"),
    "prune_after_epochs": (int | None, "none"), "seed": (int, "0"), "metric": (str, ""),  # else what is monitored
    "direction": (Literal["minimize", "maximize"], ""),  # else that of the metric
}  # fmt: skip


class _Problems:
    """Collects what is wrong, with its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: list[tuple[int, str]] = []

    def add(self, at: str | None, text: str) -> None:
        """Note a problem at a text of the file."""
        self.found.append((getattr(at, "line", 0), text))

    def lines(self) -> list[str]:
        """Return them in the file's order."""
        return [f"{self._path}{f':{line}' if line else ''} {text}" for line, text in sorted(self.found)]


def read_spec(path: Path, section: str) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        path: path of the sweep file.
        section: section of config.ini whose keys the sweep may search and set.

    Raises:
        ConfigError: all that is wrong with it at once.
    """
    config_class = ConfigParser.sections().get(section)
    if config_class is None:
        raise ConfigError(f"--sweep needs the trainer's config class in config/; there is none for [{section}]")
    content, twice = read_yaml(path)
    problems = _Problems(path)
    problems.found += twice
    keys = key_types(config_class)
    for key in content:
        if key not in _KEYS:
            problems.add(key, _unknown(key, _KEYS))
    plain = {key: _plain_value(key, content, path, problems) for key in _PLAIN}
    settings = _settings(content, keys, section, path, problems)
    monitor, mode = (settings.get(Text(key)) or ConfigParser.peek(section, key) for key in ("monitor", "monitor_mode"))
    plain["metric"] = plain["metric"] or monitor
    if "direction" not in content:
        known = mode if plain["metric"] == monitor and mode != "auto" else direction_of(plain["metric"])
        plain["direction"] = {"min": "minimize", "max": "maximize"}.get(known or "")
        if known is None:  # the best could be the worst
            problems.add(
                _key_at(content, "metric") if "metric" in content else None,
                f"metric: whether {plain['metric']} is better low or high is not known from its name: say "
                "`direction: maximize` or `direction: minimize`",
            )
    space = _space(content, keys, section, path, problems)
    for key in settings:
        if key in space:
            problems.add(key, f"settings: '{key}' is in space too: it is either set or searched")
    for name in ConfigParser.overrides():
        if name in space:
            problems.add(_searched(content, name), f"space: '{name}' is set on the command line too: remove one")
    if plain["sampler"] == "grid":
        plain["trials"] = _grid_trials(plain["trials"], content, space, problems)
    elif "trials" not in content:
        problems.add(None, "missing key 'trials': how many runs there shall be, such as `trials: 20`")
    if problems.found:
        raise ConfigError(problems.lines())
    plain["name"] = plain["name"] or path.stem
    return SweepSpec(settings={str(key): text for key, text in settings.items()}, space=space, **plain)


def _plain_value(key: str, content: Mapping[Text, Any], path: Path, problems: _Problems) -> Any:
    hint, default = _PLAIN[key]
    if key not in content:
        return read_value(hint, default, path.parent) if default else None
    given = content[_key_at(content, key)]
    try:
        if not isinstance(given, Text):
            raise BadValue(must_be(hint))
        value = read_value(hint, given, path.parent)
        if key in ("trials", "timeout_minutes", "prune_after_epochs") and value is not None and value <= 0:
            raise BadValue("must be greater than 0")
        if key == "seed" and not 0 <= value < 2**32:
            raise BadValue("must be an integer from 0 to 4294967295")
        if key == "name" and (not value or "/" in value or value.startswith(".")):
            raise BadValue("must be the name of a folder")
        return value
    except BadValue as error:
        problems.add(_key_at(content, key), f"{key}: {_shown(given)} {error}")
        return None


def _settings(
    content: Mapping[Text, Any], keys: Mapping[str, Any], section: str, path: Path, problems: _Problems
) -> dict[Text, str]:
    given = content[_key_at(content, "settings")] if "settings" in content else {}
    if not isinstance(given, dict):
        problems.add(_key_at(content, "settings"), "settings: must be `key: value` lines")
        return {}
    found = {}
    for key, value in given.items():
        if key not in keys or key in _FIXED:
            problems.add(key, f"settings: {_why_not(key, keys, section)}")
            continue
        text = _as_text(value)
        if _allowed("settings", key, text, keys[key], path, problems):
            found[key] = _resolved(text, keys[key], path)
    return found


def _space(
    content: Mapping[Text, Any], keys: Mapping[str, Any], section: str, path: Path, problems: _Problems
) -> dict[str, Dimension]:
    given = content[_key_at(content, "space")] if "space" in content else None
    if not isinstance(given, dict) or not given:
        at = _key_at(content, "space") if "space" in content else None
        problems.add(at, f"missing key 'space': the keys to search, each with {_FORMS}")
        return {}
    found = {}
    for key, asked in given.items():
        if key not in keys or key in _FIXED:
            problems.add(key, f"space: {_why_not(key, keys, section)}")
            continue
        dimension = _dimension(key, asked, keys[key], path, problems)
        if dimension is not None:
            found[str(key)] = dimension
    return found


def _dimension(key: Text, asked: Any, hint: Any, path: Path, problems: _Problems) -> Dimension | None:
    if isinstance(asked, dict) and list(asked) == ["choices"]:
        asked = asked[_key_at(asked, "choices")]
    if isinstance(asked, list):
        return _choices(key, asked, hint, path, problems)
    kinds: tuple[Literal["range", "log"], ...] = ("range", "log")
    kind = next((kind for kind in kinds if isinstance(asked, dict) and kind in asked), None)
    if kind is None or set(asked) - {kind, "step"} or (kind == "log" and "step" in asked):
        problems.add(key, f"space: '{key}' must be {_FORMS}")
        return None
    number = _number_type(hint)
    if number is None:
        problems.add(key, f"space: '{key}' is no number, it {must_be(hint)}: give a list of choices")
        return None
    ends = asked[_key_at(asked, kind)]
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, Text) for end in ends):
        problems.add(key, f"space: '{key}' must be {_FORMS}")
        return None
    if not all([_allowed("space", key, end, hint, path, problems) for end in ends]):
        return None
    values = [read_value(hint, end, path.parent) for end in ends]
    if None in values:
        problems.add(key, f"space: '{key}' goes from {ends[0]} to {ends[1]}: none is a choice of a list, not an end")
        return None
    low, high = map(number, values)
    if low >= high or (kind == "log" and low <= 0):
        above = " and above 0" if kind == "log" else ""
        problems.add(key, f"space: '{key}' goes from {ends[0]} to {ends[1]}: the first must be the smaller one{above}")
        return None
    step = None
    if "step" in asked:
        try:
            step = read_value(number, asked[_key_at(asked, "step")], path.parent)
        except (BadValue, AttributeError):
            step = 0
        if not 0 < step <= high - low:
            problems.add(key, f"space: the step of '{key}' must be a number above 0, at most {high - low:g}"
                         + (", and whole" if number is int else ""))  # fmt: skip
            return None
    return Dimension(kind, (), low, high, step, number is int)


def _choices(key: Text, asked: list[Any], hint: Any, path: Path, problems: _Problems) -> Dimension | None:
    texts = [_as_text(item) for item in asked]
    if len(set(texts)) < 2 or len(set(texts)) < len(texts):
        problems.add(key, f"space: '{key}' needs two choices or more, each once")
        return None
    if not all([_allowed("space", key, text, hint, path, problems) for text in texts]):
        return None
    values = [read_value(hint, text, path.parent) for text in texts]
    if any(value in values[:place] for place, value in enumerate(values)):  # such as 0.1 and 1e-1
        problems.add(key, f"space: '{key}' needs two choices or more, each once")
        return None
    return Dimension("choices", tuple(_resolved(text, hint, path) for text in texts))


def _grid_trials(
    trials: int | None, content: Mapping[Text, Any], space: Mapping[str, Dimension], problems: _Problems
) -> int:
    size = 1
    for key, dimension in space.items():
        values = dimension.grid()
        if values is None:
            problems.add(
                _searched(content, key), f"space: '{key}' has no end of values; a grid needs choices or a step"
            )
        size *= len(values or [0])
    return min(trials or size, size)


def _number_type(hint: Any) -> type | None:
    base, metadata = split_hint(hint)
    members = members_of(base, metadata)[0] if is_union(base) else [hint]
    bases = [split_hint(member)[0] for member in members]
    return float if float in bases else int if int in bases else None


def _allowed(part: str, key: Text, text: Any, hint: Any, path: Path, problems: _Problems) -> bool:
    """Whether config.ini would take the value."""
    try:
        if not isinstance(text, str):
            raise BadValue(must_be(hint))
        read_value(hint, text, path.parent)
    except BadValue as error:
        problems.add(text if isinstance(text, Text) else key, f"{part}: {key} = {_shown(text)}: {error}")
        return False
    return True


def _resolved(text: str, hint: Any, path: Path) -> str:
    """Return a value as the command line takes it from any folder: paths are relative to the sweep file."""
    value = read_value(hint, text, path.parent)
    return str(value) if isinstance(value, Path) else str(text)


def _as_text(value: Any) -> Any:
    """Return a value as ini text; a list in the file stands for one in config.ini."""
    if isinstance(value, list) and all(isinstance(item, Text) for item in value):
        return ", ".join(value)
    return value


def _shown(value: Any) -> str:
    return word(value) if isinstance(value, str) else f"a {'list' if isinstance(value, list) else 'mapping'}"


def _why_not(key: Text, keys: Mapping[str, Any], section: str) -> str:
    if key in keys:
        return f"'{key}' must be the same for all trials: set it in config.ini or on the command line"
    return f"{_unknown(key, list(keys))} ([{section}])"


def _unknown(key: str, known: Sequence[str]) -> str:
    near = nearest(key, known)
    hint = f"did you mean '{near}'?" if near else f"known keys are {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def _searched(content: Mapping[Text, Any], key: str) -> Text:
    """Return a key of the space as it stands in the file, with its line."""
    return _key_at(content[_key_at(content, "space")], key)


def _key_at(content: Mapping[Text, Any], key: str) -> Text:
    """Return the key as it stands in the file, with its line."""
    return next(known for known in content if known == key)
