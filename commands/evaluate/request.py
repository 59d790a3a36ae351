"""What `--test` and `--predict` were asked for, and the run that is meant. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path

from config import ConfigParser
from constants import command
from storage.saved_run import RunNotFoundError, find_run, read_metrics, read_settings, settings_in
from train.registry import TrainerEntry


@dataclass(frozen=True)
class EvaluationRequest:
    """A saved run to be evaluated.

    Attributes:
        run: folder of the run.
        changed: settings of the command line that differ from the run's: `batch_size 32 -> 64`.
        out: file that predictions are written to; None for a test.
        force: whether that file may be there already.
    """

    run: Path
    changed: tuple[str, ...] = ()
    out: Path | None = None
    force: bool = False


def find_evaluated_run(entry: TrainerEntry, text: str, artifacts_dir: Path) -> Path:
    """Find the run whose best weights are meant.

    Args:
        entry: trainer that was named.
        text: `latest`, a run id, or a run folder.
        artifacts_dir: folder of all runs and published models.

    Returns:
        The run's folder.

    Raises:
        RunNotFoundError: there is none, it is another trainer's, or it has no weights.
        RunDamagedError: its metrics.json can't be read.
    """
    short = entry.name.removesuffix("Trainer")
    group = next((path for path in (Path(text), artifacts_dir / "models" / short / "seeds" / text)
                  if (path / "seeds.json").is_file()), None)  # fmt: skip
    if group is not None:
        raise RunNotFoundError(
            f"{text} is a group of seeds; name one of its runs. `{command('plot')} --runs {short}` lists them."
        )
    run = find_run(short if text == "latest" else text, artifacts_dir)
    owner = str(read_metrics(run).get("trainer"))
    if owner != entry.name and run.parent.parent.name != short:
        raise RunNotFoundError(
            f"{run} is a run of {owner}, not of {entry.name}: name that trainer, or a run of {entry.name}"
        )
    if not (run / "model.safetensors").is_file():
        others = sorted(path.parent.name for path in run.parent.glob("*/model.safetensors"))[-5:]
        hint = f"Runs with weights: {', '.join(others)}." if others else "No run here has."
        raise RunNotFoundError(
            f"run {run.name} has no model.safetensors: it has not come to the end of a validation. {hint}"
        )
    return run


def changed_settings(entry: TrainerEntry, run: Path) -> tuple[str, ...]:
    """Return what the command line has changed of a run's settings; to be called after `ConfigParser.use`.

    Args:
        entry: the run's trainer.
        run: folder of the run.
    """
    config_class = ConfigParser.sections().get(entry.section)
    if config_class is None:
        return ()
    before, now = read_settings(run), settings_in(ConfigParser.dump(ConfigParser.get(config_class)))
    typed = ConfigParser.overrides()
    return tuple(
        f"{name} {before.get(name, '(not there)')} -> {now[name]}"
        for name in typed
        if name in now and before.get(name) != now[name]
    )
