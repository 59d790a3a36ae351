"""The checks, by the names that workflow.yaml has for them. Each answers with figures, and never raises."""

import json
import math
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import yaml

from constants.counting import counted
from workflow.checks.adapters import check_adapter, check_weights
from workflow.checks.result import CheckResult, UnusableError
from workflow.checks.tables import field_of, numbers_of, read_rows
from workflow.definition.expression import ExpressionError, filled
from workflow.definition.facts import Check
from workflow.definition.numbers import number_of

_WINDOW = 0.1  # share of the rows at either end that a loss's beginning and end are the means of
_ABOUT = 0.5  # "from about a": within so large a share of it
_TIMEOUT = 600

Arguments = Mapping[str, object]


def run_check(check: Check, settings: Mapping[str, object], folder: Path, python: str) -> CheckResult:
    """Hold what a step has made to a check.

    Args:
        check: the check.
        settings: settings of the preset.
        folder: the project's folder.
        python: the project's interpreter.
    """
    try:
        arguments = filled(check.arguments, settings)
        assert isinstance(arguments, dict)
        if check.kind == "runs":
            return _runs(folder, str(arguments["command"]), python)
        return _CHECKS[check.kind](folder, arguments)
    except (UnusableError, ExpressionError) as error:
        return CheckResult(False, str(error))
    except OSError as error:
        return CheckResult(False, f"{error.filename or folder}: {error.strerror}")


def _exists(folder: Path, arguments: Arguments) -> CheckResult:
    absent = [name for name in _names(arguments["files"]) if not (folder / name).exists()]
    empty = [
        name for name in _names(arguments["files"]) if (folder / name).is_file() and not (folder / name).stat().st_size
    ]
    if absent or empty:
        told = [f"{name} is not there" for name in absent] + [f"{name} is empty" for name in empty]
        return CheckResult(False, ", ".join(told))
    return CheckResult(True, f"{', '.join(_names(arguments['files']))}: there")


def _rows(folder: Path, arguments: Arguments) -> CheckResult:
    name = str(arguments["file"])
    rows = sum(1 for _ in read_rows(_file(folder, name)))
    bounds = _bounds(arguments, rows)
    return CheckResult(not bounds, f"{name} has {counted(rows, 'row')}{bounds}", {"rows": rows})


def _json_field(folder: Path, arguments: Arguments) -> CheckResult:
    name, field = str(arguments["file"]), str(arguments["field"])
    path = _file(folder, name)
    try:
        value = field_of(json.loads(path.read_text(encoding="utf-8-sig")), field)
    except ValueError as error:
        raise UnusableError(f"{name} is no JSON: {error}") from None
    if value is None:
        return CheckResult(False, f"{name} has no field {field}")
    if "equals" in arguments and value != arguments["equals"]:
        return CheckResult(False, f"{field} of {name} is {value!r}; needed is {arguments['equals']!r}", {field: value})
    if "at_least" in arguments or "at_most" in arguments:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return CheckResult(False, f"{field} of {name} is {value!r}; needed is a number", {})
        bounds = _bounds(arguments, value)
        return CheckResult(not bounds, f"{field} of {name} is {value:g}{bounds}", {field: value})
    return CheckResult(True, f"{field} of {name} is {value!r}", {field: value})


def _fields(folder: Path, arguments: Arguments) -> CheckResult:
    name, wanted = str(arguments["file"]), _names(arguments["names"])
    rows = 0
    for rows, row in enumerate(read_rows(_file(folder, name)), 1):
        for field in wanted:
            if field_of(row, field) in (None, "", []):
                return CheckResult(False, f"{name}, row {rows}: {field} is {'empty' if field in row else 'not there'}")
    return CheckResult(rows > 0, f"all {counted(rows, 'row')} of {name} have {', '.join(wanted)}", {"rows": rows})


def _loss_falls(folder: Path, arguments: Arguments) -> CheckResult:
    name, field = str(arguments["file"]), str(arguments.get("field", "loss"))
    values = numbers_of(_file(folder, name), field)
    if len(values) < 2:
        return CheckResult(
            False, f"{name} has {counted(len(values), 'value')} of {field}; two are needed to see it fall"
        )
    if bad := next((place for place, value in enumerate(values, 1) if not math.isfinite(value)), None):
        return CheckResult(False, f"{field} is no number at row {bad} of {name}")
    window = max(1, int(len(values) * _WINDOW))
    first, last = fmean(values[:window]), fmean(values[-window:])
    means = f", means of {window} each," if window > 1 else ""
    told = f"{field} from {first:.3g} to {last:.3g}{means} in {counted(len(values), 'row')} of {name}"
    figures = {"first": first, "last": last, "lowest": min(values)}
    if last >= first:
        return CheckResult(False, f"{told}: it does not fall", figures)
    begin, end, share = (arguments.get(key) for key in ("from", "to", "by"))
    if begin is not None and abs(first - _number(begin)) > _ABOUT * _number(begin):
        return CheckResult(False, f"{told}; it should begin at about {_number(begin):g}", figures)
    if end is not None and last > _number(end):
        return CheckResult(False, f"{told}; it should end at {_number(end):g} or below", figures)
    if share is not None and first - last < _number(share) * first:
        return CheckResult(False, f"{told}; it should fall by {_number(share):.0%}", figures)
    return CheckResult(True, told, figures)


def _no_nan(folder: Path, arguments: Arguments) -> CheckResult:
    name = str(arguments["file"])
    rows = 0
    for rows, row in enumerate(read_rows(_file(folder, name)), 1):
        for field, value in row.items():
            wrong = isinstance(value, float) and not math.isfinite(value)
            if wrong or (isinstance(value, str) and value.strip().lower() in ("nan", "inf", "-inf", "infinity")):
                return CheckResult(False, f"{field} is {value} at row {rows} of {name}")
    return CheckResult(rows > 0, f"all numbers of {counted(rows, 'row')} of {name} are finite", {"rows": rows})


def _checkpoints(folder: Path, arguments: Arguments) -> CheckResult:
    name = str(arguments["folder"])
    steps = arguments["steps"]
    wanted = [int(_number(one)) for one in (steps if isinstance(steps, list) else [steps])]
    place = folder / name
    listed = place / "checkpoints.jsonl"
    there: dict[int, Path | None] = {}
    if listed.is_file():
        for row in read_rows(listed):
            if isinstance(row.get("step"), int) and row.get("path"):
                there[int(str(row["step"]))] = None
    for path in place.iterdir() if place.is_dir() else ():
        if match := re.search(r"(\d+)$", path.name):
            there[int(match[1])] = path
    lacking = [step for step in wanted if step not in there]
    if lacking:
        have = f"; there are {', '.join(map(str, sorted(there)))}" if there else ""
        return CheckResult(False, f"{name} has no checkpoint of step {', '.join(map(str, lacking))}{have}")
    for step in wanted:
        if (weights := there[step]) is not None:
            check_weights(weights)
    return CheckResult(True, f"{name} has the checkpoints of {', '.join(map(str, wanted))}", {"checkpoints": wanted})


def _split(folder: Path, arguments: Arguments) -> CheckResult:
    names = _names(arguments["files"])
    given = arguments["shares"]
    shares = [_number(one) for one in (given if isinstance(given, list) else [given])]
    counts = [sum(1 for _ in read_rows(_file(folder, name))) for name in names]
    whole = sum(counts)
    told = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    if len(shares) != len(names) or not whole:
        return CheckResult(False, f"{told}: {'no rows' if not whole else 'as many shares as files are needed'}")
    tolerance = _number(arguments.get("tolerance", 0.01))
    off = any(abs(count / whole - share) > tolerance for count, share in zip(counts, shares, strict=True))
    wanted = " / ".join(f"{share:.0%}" for share in shares)
    figures = dict(zip(names, counts, strict=True))
    return CheckResult(not off, f"{told}{f'; needed is {wanted}' if off else ''}", figures)


def _disjoint(folder: Path, arguments: Arguments) -> CheckResult:
    names, field = _names(arguments["files"]), str(arguments["field"])
    seen: dict[str, str] = {}
    for name in names:
        for number, row in enumerate(read_rows(_file(folder, name)), 1):
            value = json.dumps(field_of(row, field), sort_keys=True)
            if seen.get(value, name) != name:
                return CheckResult(False, f"row {number} of {name} is in {seen[value]}, too ({field})")
            seen[value] = name
    return CheckResult(True, f"no {field} of {' and '.join(names)} is in both", {"values": len(seen)})


def _matches(folder: Path, arguments: Arguments) -> CheckResult:
    name, pattern = str(arguments["file"]), str(arguments["pattern"])
    try:
        found = re.search(pattern, _file(folder, name).read_text(encoding="utf-8-sig", errors="replace"), re.MULTILINE)
    except re.error as error:
        raise UnusableError(f"{pattern!r} is no regular expression: {error}") from None
    return CheckResult(found is not None, f"{name} {'has' if found else 'lacks'} {pattern!r}")


def _loads_yaml(folder: Path, arguments: Arguments) -> CheckResult:
    name = str(arguments["file"])
    try:
        content = yaml.safe_load(_file(folder, name).read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        raise UnusableError(f"{name} is no YAML: {getattr(error, 'problem', error)}") from None
    lacking = [key for key in _names(arguments.get("keys", [])) if field_of(content, key) is None]
    if lacking:
        return CheckResult(False, f"{name} lacks {', '.join(lacking)}")
    return CheckResult(True, f"{name}: read")


def _loads_adapter(folder: Path, arguments: Arguments) -> CheckResult:
    return check_adapter(folder / str(arguments["folder"]))


def _runs(folder: Path, command: str, python: str) -> CheckResult:
    words = [python if word == "python" else word for word in shlex.split(command)]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
    except FileNotFoundError:
        return CheckResult(False, f"{words[0]} is not there, so `{command}` can't be run")
    except subprocess.TimeoutExpired:
        return CheckResult(False, f"`{command}` was not done after {_TIMEOUT} s")
    last = next((line for line in reversed((done.stdout + done.stderr).splitlines()) if line.strip()), "")
    if done.returncode:
        return CheckResult(False, f"`{command}` ended with {done.returncode}: {last[:200]}")
    return CheckResult(True, f"`{command}`: {last[:200] or 'done'}")


def _bounds(arguments: Arguments, value: float) -> str:
    """Say which bound a number breaks; "" where none."""
    if "exactly" in arguments and value != _number(arguments["exactly"]):
        return f"; needed are exactly {_number(arguments['exactly']):,g}"
    if "at_least" in arguments and value < _number(arguments["at_least"]):
        return f"; needed are at least {_number(arguments['at_least']):,g}"
    if "at_most" in arguments and value > _number(arguments["at_most"]):
        return f"; needed are at most {_number(arguments['at_most']):,g}"
    return ""


def _number(value: object) -> float:
    number = number_of(value)
    if number is None:
        raise UnusableError(f"{value!r} is no number to hold something to")
    return number


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise UnusableError(f"{name} is not there")
    return path


_CHECKS: Mapping[str, Callable[[Path, Arguments], CheckResult]] = {
    "exists": _exists, "rows": _rows, "json_field": _json_field, "fields": _fields, "loss_falls": _loss_falls,
    "no_nan": _no_nan, "checkpoints": _checkpoints, "split": _split, "disjoint": _disjoint, "matches": _matches,
    "loads_yaml": _loads_yaml, "loads_adapter": _loads_adapter,
}  # fmt: skip
