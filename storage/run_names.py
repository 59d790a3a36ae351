"""What runs are called beside one another: the name that a run was given, else the settings in which it differs."""

from collections.abc import Sequence

from constants.settings import CHANGE_NO_NUMBER
from storage.saved_run import Run, RunDamagedError, read_settings

_MOST, _LONGEST = 3, 24  # settings in a name; characters of a value


def run_names(runs: Sequence[Run]) -> list[str]:
    """Name runs so that a reader can tell them apart: for legends, tables and texts.

    Args:
        runs: runs that are shown together.

    Returns:
        For each run the name that it was given, else the settings in which it differs from the others of its trainer
        (`hidden_dim=32`), else its id; with the trainer where there are several. All are different.
    """
    several = len({run.trainer for run in runs}) > 1
    found = []
    for run, differing in zip(runs, _differing(runs), strict=True):
        trainer = (run.trainer.removesuffix("Trainer") or run.trainer) if several else ""
        own = run.label.name or differing or ("" if trainer else run.id)
        found.append(" ".join(word for word in (trainer, own) if word))
    return [f"{name} ({run.id})" if found.count(name) > 1 else name for name, run in zip(found, runs, strict=True)]


def _differing(runs: Sequence[Run]) -> list[str]:
    """Return for each run the settings in which it differs from the others of its trainer.

    Where these are many, as few as tell the runs apart.
    """
    settings = [_settings(run) for run in runs]
    found = []
    for run, own in zip(runs, settings, strict=True):
        group = [other for peer, other in zip(runs, settings, strict=True) if peer.trainer == run.trainer and other]
        keys = [key for key in own if any(other.get(key) != own[key] for other in group)]
        chosen = keys if len(keys) <= _MOST else _telling(keys, group)
        shown = [f"{key}={_short(own[key])}" for key in chosen]
        found.append(", ".join([*shown, "…"] if len(chosen) < len(keys) else shown))
    return found


def _telling(keys: Sequence[str], group: Sequence[dict[str, str]]) -> list[str]:
    """Choose settings that tell runs apart: each time the one that leaves the fewest alike."""
    chosen: list[str] = []
    kinds = len({tuple(other.get(key) for key in keys) for other in group})
    while len(chosen) < _MOST and len({tuple(other.get(key) for key in chosen) for other in group}) < kinds:
        rest = [key for key in keys if key not in chosen]
        chosen.append(max(rest, key=lambda key: len({tuple(o.get(k) for k in (*chosen, key)) for o in group})))
    return chosen


def _settings(run: Run) -> dict[str, str]:
    try:
        settings = read_settings(run.path)
    except RunDamagedError:
        return {}
    own_last = {key: value for key, value in settings.items() if key and key not in CHANGE_NO_NUMBER}
    return dict(reversed(own_last.items()))  # a trainer's own settings stand behind those of all: they say more


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 2]}.."
