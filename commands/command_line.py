"""The command line `python train.py`: arguments, exit codes, and errors without a traceback."""

import argparse
import gc
import importlib
import importlib.metadata
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from commands.argument_hints import HintingParser
from commands.evaluate.request import EvaluationRequest, changed_settings, find_evaluated_run
from commands.trainer_help import trainer_help
from config import ConfigError, ConfigParser
from constants import command
from constants.commit import ShowVersion
from constants.end_signals import hearing_signals
from constants.environment_faults import doctor_hint
from constants.missing_packages import explain_missing_package
from constants.program import called
from data.data_error import DataError
from storage.errors import OutputError, ResumeError
from storage.failed_runs import ReplayError, find_failed_run, read_report
from storage.log_lines import use_log_lines
from storage.prediction_file import FORMATS, PredictionFileError, check_prediction_file
from storage.run_folder import find_resumable
from storage.run_label import RunLabel, name_problem
from storage.saved_run import RunDamagedError, RunNotFoundError
from train import TRAINER_REGISTRY
from train.errors import ElsewhereError, ScaffoldError, TrainerContractError, TrainingError
from train.loop.long_phases import long_phase
from train.registry import RegistryError, TrainerEntry, UnknownTrainerError

OK, USAGE, DATA, FAILED = 0, 2, 3, 4
_OLDEST_TORCH = (2, 10)
_PREVIEWED = 3  # rows that --preview shows

# What is done with a trainer instead of a plain run: an option, and the module whose `command(trainer_class, value)`
# does it, with the option's value, and returns the exit code. They exclude each other and, but for some, --resume.
_MODES = {
    "dry_run": "commands.dry_run",
    "preview": "commands.preview",
    "check": "commands.check.run",
    "find_lr": "commands.find_lr",
    "find_batch_size": "commands.find_batch_size",
    "profile": "commands.profiling",
    "sweep": "commands.sweeps",
    "seeds": "commands.seeds.command",
    "test": "commands.evaluate.test",
    "predict": "commands.evaluate.predict",
    "chat": "commands.chat",
    "export": "commands.export",
    "losses": "commands.losses",
}
_RESUMABLE = _LABELLED = ("seeds",)
_OF_A_SAVED_RUN = ("test", "predict")  # they take the run's settings
_OF_SAVED_WEIGHTS = ("chat", "export", "losses")  # they need no trainer, and have settings of their own:
_SECTIONS = {"chat": "Chat", "export": "Export", "losses": "Losses"}

_EXAMPLES = """examples:
  python train.py --list
  python train.py ModelAutoEncoder epochs=5 learning_rate=3e-4
  python train.py ModelAutoEncoder --name baseline --note "first try"
  python train.py ModelAutoEncoder --dry-run
  python train.py ModelAutoEncoder --check
  python train.py ModelAutoEncoder --resume
  python train.py ModelAutoEncoder --profile
  python train.py SimilarityTransformer --sweep docs/sweep.yaml
  python train.py ModelAutoEncoder --seeds 8
  python train.py ModelAutoEncoder --test
  python train.py ModelAutoEncoder --predict latest --out predictions.csv
  python train.py LanguageModel --chat
  python train.py LanguageModel --export latest merge=on
  python train.py --losses latest data=chats.jsonl --out losses.jsonl
  python train.py --replay latest precision=fp32
  python train.py --new MyTrainer --model model.my_model:MyModel --batch dict --task ranking

exit codes: 0 done, 2 usage or config, 3 data, 4 training or a line of --check failed,
130 interrupted by Ctrl-C, 143 by SIGTERM, 138 by SIGUSR1"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    parser = _parser()
    arguments = parser.parse_intermixed_args(words)
    arguments.run = None  # folder of the run that is trained, as soon as there is one
    try:
        with hearing_signals():
            return _run(parser, arguments)
    except KeyboardInterrupt as error:
        by = f" by {error}" if str(error) else ""
        text = f"interrupted{by}{_how_to_go_on(arguments, getattr(error, 'saved', False))}"
        return _report(arguments, text, 128 + getattr(error, "number", signal.SIGINT.value))
    except (
        ConfigError, UnknownTrainerError, RegistryError, ResumeError, ReplayError, ScaffoldError, TrainerContractError,
        RunNotFoundError, RunDamagedError, PredictionFileError,
    ) as error:  # fmt: skip
        return _report(arguments, str(error), USAGE)
    except (DataError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        return _report(arguments, _of_data(error), DATA)
    except (TrainingError, OutputError) as error:
        return _report(arguments, str(error), FAILED)
    except Exception as error:  # a trainer's code may raise anything
        if isinstance(error, ModuleNotFoundError) and explain_missing_package(error.name, "train"):
            raise  # which the script tells, as for all of its kind
        return _report(arguments, _unforeseen(error), FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = HintingParser(
        prog=command("train"),
        description="Run a trainer. Its settings are a section of config.ini.",
        epilog=_EXAMPLES.replace("python train.py", command("train")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("trainer", nargs="?", help="name of a trainer; any case, `Trainer` may be left out")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that replace those of config.ini")
    parser.add_argument("--list", action="store_true", help="show the trainers and leave")
    parser.add_argument("-h", "--help", action="store_true", help="show this, and a named trainer's settings")
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--config", metavar="FILE", help="read FILE instead of config.ini")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RUN",
        help="go on with a run: the latest, an id, a name, or a folder; `auto`: the latest, or start one",
    )
    parser.add_argument("--name", metavar="NAME", help="call the run NAME; plot.py and --resume find it by that")
    parser.add_argument("--note", metavar="TEXT", help="write TEXT beside the run, for tables and reports")
    parser.add_argument("--dry-run", action="store_true", help="build all, try one forward pass, show the plan, leave")
    parser.add_argument(
        "--preview", nargs="?", const=_PREVIEWED, type=_row_count, metavar="N",
        help="show the first N rows of text as they are trained on (3), and what became of all rows, leave",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="go through the checklist before a long run, leave")
    parser.add_argument("--find-lr", action="store_true", help="test learning rates, suggest one, leave")
    parser.add_argument("--find-batch-size", action="store_true", help="find the largest batch that fits, leave")
    parser.add_argument("--profile", action="store_true", help="train some steps, show where their time goes, leave")
    parser.add_argument("--sweep", metavar="FILE", help="search for the best settings, as a YAML file says (optuna)")
    parser.add_argument(
        "--seeds", type=_seed_count, metavar="N",
        help="train with N seeds, counted up from the config's; show mean and spread; with --resume, finish them",
    )  # fmt: skip
    parser.add_argument(
        "--replay", nargs="?", const="latest", metavar="RUN",
        help="repeat the step at which a run's numbers went wrong, layer by layer: the latest, or an id, or a folder",
    )  # fmt: skip
    parser.add_argument(
        "--test", nargs="?", const="latest", metavar="RUN",
        help="measure the best weights of a run on the trainer's test_loader: the latest, an id, a name or a folder",
    )  # fmt: skip
    parser.add_argument(
        "--predict", nargs="?", const="latest", metavar="RUN",
        help="write what the best weights of a run make of each sample to the file of --out; RUN as for --test",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="of --predict: .csv, .jsonl, .npz, .npy, .parquet, ...; of --losses: a .jsonl file; of --export: a folder",
    )
    parser.add_argument(
        "--force", action="store_true", help="of --predict, --losses and --export: replace what is there"
    )
    parser.add_argument(
        "--chat", nargs="?", const="latest", metavar="RUN",
        help="talk with a language model: a run, an exported folder, or a base model such as smollm2",
    )  # fmt: skip
    parser.add_argument(
        "--export", nargs="?", const="latest", metavar="RUN",
        help="write a language model's adapter once more, or with merge=on a whole model; RUN as for --chat",
    )  # fmt: skip
    parser.add_argument(
        "--losses", nargs="?", const="latest", metavar="RUN",
        help="write a language model's loss of each row of data=FILE to the file of --out; RUN as for --chat",
    )  # fmt: skip
    new = parser.add_argument_group("a new trainer from a model")
    new.add_argument("--new", metavar="NAME", help="write a trainer, its config, section and test; needs those below")
    new.add_argument("--model", metavar="MODULE:CLASS", help="such as model.my_model:MyModel")
    new.add_argument("--batch", choices=("tensor", "dict", "dataclass"), help="what a batch is")
    new.add_argument(
        "--task", choices=("autoencoder", "ranking", "transformer", "classification"), help="what it learns"
    )
    new.add_argument("--input", metavar="SHAPE", help="of a sample, such as 16 or 3x32x32, where it can't be found out")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _show(_list())
    alone = _given(arguments, [*_MODES, "replay", "new"])
    if alone and int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return _report(arguments, f"{alone[0]} is for one process: start it without torchrun", USAGE)
    of_saved = (*_OF_A_SAVED_RUN, *_OF_SAVED_WEIGHTS)
    for option in ("resume", "replay", *of_saved):  # `--resume epochs=5`: argparse takes the setting for the run
        given = getattr(arguments, option)
        if given and "=" in given and not Path(given).exists():
            arguments.settings.insert(0, given)
            setattr(arguments, option, "latest")
        elif option in of_saved and given in TRAINER_REGISTRY and "=" in (arguments.trainer or "="):
            arguments.settings[:0] = [arguments.trainer] if arguments.trainer else []
            arguments.trainer = given  # `--test NAME`: argparse takes the trainer for the run
            setattr(arguments, option, "latest")
    if isinstance(arguments.preview, str):  # so for `--preview epochs=5`
        arguments.settings.insert(0, arguments.preview)
        arguments.preview = _PREVIEWED
    trainerless = arguments.replay or _given(arguments, _OF_SAVED_WEIGHTS)
    if trainerless and arguments.trainer and "=" in arguments.trainer:
        arguments.settings.insert(0, arguments.trainer)
        arguments.trainer = None
    entry = TRAINER_REGISTRY.entry(arguments.trainer) if arguments.trainer else None
    if arguments.help:
        if entry is None:
            return _show(parser.format_help())
        ConfigParser.use(arguments.config, arguments.settings, entry.section)
        return _show(parser.format_help() + trainer_help(entry))
    use_log_lines()
    labels, without = (
        _given(arguments, ("name", "note")),
        _given(arguments, ["replay", "new", *_MODES.keys() - _LABELLED]),
    )
    if labels and without:
        hint = "; a sweep's name is the `name:` of its file" if arguments.sweep else f": {without[0]} keeps no run"
        return _report(arguments, f"{labels[0]} and {without[0]} don't go together{hint}", USAGE)
    if any((arguments.new, arguments.model, arguments.batch, arguments.task, arguments.input)):
        return _new(arguments)
    if arguments.replay:
        return _replay(entry, arguments)
    if _given(arguments, _OF_SAVED_WEIGHTS):
        return _of_saved_weights(entry, arguments)
    if entry is None:
        parser.print_usage(sys.stderr)
        return _report(arguments, f"name a trainer; `{command('train')} --list` shows all", USAGE)

    modes = _given(arguments, [*_MODES, "resume"])
    if len(modes) > 1 and not (len(modes) == 2 and arguments.resume and _given(arguments, _RESUMABLE)):
        return _report(arguments, f"{' and '.join(modes)} don't go together: use one at a time", USAGE)

    misplaced = _given(arguments, [] if arguments.predict else ["out", "force"])
    if misplaced:
        return _report(arguments, f"{misplaced[0]} is of --predict: name the run that shall predict", USAGE)
    if _given(arguments, _OF_A_SAVED_RUN):
        return _evaluate(entry, arguments)

    _use_settings(entry, arguments.config, arguments.settings)
    if arguments.sweep:
        importlib.import_module("commands.sweeps").check(arguments.sweep, entry.section)
    if arguments.name and (problem := _name_problem(entry, arguments)):
        return _report(arguments, problem, USAGE)
    _require_torch()
    return _train(entry, arguments)


def _use_settings(entry: TrainerEntry, file: Path | None, settings: Sequence[str]) -> None:
    """Take settings from a file and from the command line; wrong ones are told before torch is imported."""
    # A trainer that never reads a config has no section; building it says what it lacks.
    section = entry.section if settings or entry.section in ConfigParser.sections() else None
    ConfigParser.use(file, settings, section)
    ConfigParser.check()


def _artifacts_dir(section: str, settings: Sequence[str]) -> Path:
    """Return where saved runs are; all other settings wait for the config.ini of the run that is found there."""
    known = section if section in ConfigParser.sections() else "BaseTrainer"
    ConfigParser.use(None, [setting for setting in settings if setting.startswith("artifacts_dir=")], known)
    artifacts_dir: Path = ConfigParser.peek(section, "artifacts_dir")
    return artifacts_dir


def _name_problem(entry: TrainerEntry, arguments: argparse.Namespace) -> str | None:
    """Say why a run can't be called so, before anything is built; a resumed run is asked when it is known."""
    if arguments.resume or int(os.environ.get("RANK") or 0):
        return None
    trainers, model = TRAINER_REGISTRY.entries(), entry.name.removesuffix("Trainer")
    return name_problem(arguments.name, ConfigParser.peek(entry.section, "artifacts_dir"), model, trainers)


def _train(entry: TrainerEntry, arguments: argparse.Namespace) -> int:
    trainer_class = _import_quickly(entry)
    from train.base_trainer import BaseTrainer
    from train.context import RunOptions
    from train.process_group import joined_process_group

    resumed = None if arguments.seeds else _settings_of_resumed(entry, trainer_class, arguments)
    resume = str(resumed) if resumed is not None else arguments.resume
    BaseTrainer.options = RunOptions(resume=resume, label=RunLabel(arguments.name, arguments.note))
    for name, module in _MODES.items():
        if getattr(arguments, name):
            return importlib.import_module(module).command(trainer_class, getattr(arguments, name))
    with joined_process_group(ConfigParser.peek(entry.section, "peer_timeout_minutes")):
        trainer = trainer_class()
        arguments.run = trainer.run_context
        with trainer.session():
            trainer.train()
    return OK


def _how_to_go_on(arguments: argparse.Namespace, saved: bool) -> str:
    """Return what follows `interrupted`: the whole command that goes on, where there is something to go on with.

    Args:
        arguments: what the command line said, and the run that was interrupted.
        saved: whether the run has a checkpoint.
    """
    words = [arguments.trainer or ""]
    if arguments.sweep:
        return "; the same command goes on"
    if arguments.run is not None and not arguments.run.goes_on and arguments.run.record.progress.step:
        return f"; the train() of {arguments.run.name} is a plain loop, with which no run can be resumed"
    if not saved:
        return ""
    if arguments.seeds:
        words += ["--seeds", str(arguments.seeds), "--resume"]
    elif arguments.run is None or _given(arguments, _MODES):
        return ""
    else:
        folder = arguments.run.folder
        words += ["--resume", folder.id if folder.published is not None else str(folder.shown)]
    words += ["--config", str(arguments.config)] if arguments.config else []
    words += [word for word in arguments.settings if word.partition("=")[0].strip() == "artifacts_dir"]
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return f"; go on with torchrun as before, and: train.py {shlex.join(words)}"
    return f"; go on with: {called('train', Path.cwd())} {shlex.join(words)}"


def _settings_of_resumed(entry: TrainerEntry, trainer_class: type, arguments: argparse.Namespace) -> Path | None:
    """Let the settings of the run that is gone on with count, but for those of the command line; return its folder."""
    if not arguments.resume or entry.section not in ConfigParser.sections():
        return None
    name = trainer_class.__name__
    model = vars(trainer_class).get("model_name", name.removesuffix("Trainer") or name)
    if not isinstance(model, str):  # a property of the author's, which needs a trainer that is built
        return None
    artifacts_dir = ConfigParser.peek(entry.section, "artifacts_dir")
    found = find_resumable(artifacts_dir, model, arguments.resume, name)
    if found is not None and (found / "config.ini").is_file():
        ConfigParser.go_on_from(found / "config.ini", entry.section)
        ConfigParser.check()
    return found


def _evaluate(entry: TrainerEntry, arguments: argparse.Namespace) -> int:
    """Test a saved run, or let it predict: by its own settings, but for those of the command line."""
    option = "test" if arguments.test else "predict"
    if arguments.config:
        text = f"--{option} takes the config.ini of the run, so --config has no place; `key=value` changes settings"
        return _report(arguments, text, USAGE)
    if option == "predict" and arguments.out is None:
        as_file = Path(arguments.predict).suffix.lower() in FORMATS and not Path(arguments.predict).exists()
        file = arguments.predict if as_file else "predictions.csv"
        return _report(arguments, f"--predict needs --out FILE: --predict latest --out {file}", USAGE)
    if option == "predict":
        check_prediction_file(arguments.out, arguments.force)
    run = find_evaluated_run(entry, getattr(arguments, option), _artifacts_dir(entry.section, arguments.settings))
    _use_settings(entry, run / "config.ini", arguments.settings)
    _require_torch()
    request = EvaluationRequest(run, changed_settings(entry, run), arguments.out, arguments.force)
    setattr(arguments, option, request)
    return _train(entry, arguments)


def _of_saved_weights(entry: TrainerEntry | None, arguments: argparse.Namespace) -> int:
    """Do what needs a model that was trained, and not its trainer."""
    clash = _given(arguments, [*_MODES, "resume", *([] if arguments.export or arguments.losses else ["out", "force"])])
    if len(clash) > 1:
        return _report(arguments, f"{' and '.join(clash)} don't go together: use one at a time", USAGE)
    option = next(name for name in _OF_SAVED_WEIGHTS if getattr(arguments, name))
    artifacts_dir = _artifacts_dir(entry.section if entry else "BaseTrainer", arguments.settings)
    settings = [setting for setting in arguments.settings if not setting.startswith("artifacts_dir=")]
    ConfigParser.use(arguments.config, settings, _SECTIONS[option])
    ConfigParser.check()
    _require_torch()
    module = importlib.import_module(_MODES[option])
    model_name = entry.name.removesuffix("Trainer") if entry else None
    request = importlib.import_module("commands.chat.request")
    wanted = request.ModelRequest(getattr(arguments, option), model_name, artifacts_dir, arguments.out, arguments.force)
    return int(module.command(wanted))


def _seed_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seeds; a spread needs at least 2")
    return int(text)


def _row_count(text: str) -> int | str:
    if "=" in text:
        return text  # a setting
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of rows; show 1 or more")
    return int(text)


def _given(arguments: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Return the options among some that were given, as they are written."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name)]


def _new(arguments: argparse.Namespace) -> int:
    missing = [f"--{name}" for name in ("new", "model", "batch", "task") if not getattr(arguments, name)]
    if missing:
        return _report(
            arguments, f"a new trainer needs {', '.join(missing)} too; see `{command('train')} --help`", USAGE
        )
    clash = ["a trainer's name"] if arguments.trainer else []
    clash += _given(arguments, ("config", "resume", "replay", *_MODES))
    if clash:
        return _report(arguments, f"--new goes alone, without {', '.join(clash)}: first write it, then run it", USAGE)
    _require_torch()
    from commands.scaffold import scaffold

    return _show(scaffold(arguments.new, arguments.model, arguments.batch, arguments.task, arguments.input))


def _replay(entry: TrainerEntry | None, arguments: argparse.Namespace) -> int:
    clash = _given(arguments, ("resume", "config", *_MODES))
    if clash:
        text = (
            f"--replay and {', '.join(clash)} don't go together: a replay takes the config.ini of the run, and trains"
        )
        return _report(arguments, f"{text} nothing; `key=value` changes settings", USAGE)
    run = find_failed_run(arguments.replay, _artifacts_dir("BaseTrainer", arguments.settings))
    report = read_report(run)
    owner = TRAINER_REGISTRY.entry(report["trainer"])
    if entry is not None and entry.name != owner.name:
        return _report(arguments, f"{run} is a run of {owner.name}, not of {entry.name}", USAGE)
    _use_settings(owner, run / "config.ini", arguments.settings)
    _require_torch()
    trainer_class = _import_quickly(owner)
    from commands.replay import replay_lines
    from train.base_trainer import BaseTrainer
    from train.context import RunOptions
    from train.failures.files import read_failure

    saved = read_failure(run)
    BaseTrainer.options = RunOptions(dry_run=True)
    return _show("\n".join([f"replay of {run}", *replay_lines(trainer_class().run_context, saved)]) + "\n")


def _import_quickly(entry: TrainerEntry) -> type:
    """Import a trainer and torch with the garbage collector at rest.

    Imports make a million objects that stay; looking through them for garbage again and again is a quarter of the time
    to the first step. Frozen, they are never looked through again, so the training loop's collections are short too.
    """
    gc.disable()
    try:
        with long_phase(f"importing torch and {entry.name}"):
            trainer_class = entry.load()
            importlib.import_module("torch._dynamo")  # every torch optimizer imports it when it is built: half of torch
    finally:
        gc.enable()
    gc.freeze()
    return trainer_class


def _require_torch() -> None:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError("torch is not installed", name="torch") from None
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TORCH:
        raise ConfigError(
            [f"torch {version} is too old: its torch.load has known security holes. Install torch 2.10 or newer."]
        )


def _list() -> str:
    entries = TRAINER_REGISTRY.entries().values()
    width = max([len(entry.name) for entry in entries] + [4])
    lines = [f"{entry.name:<{width}}  [{entry.section}]  {entry.description}" for entry in entries]
    lines += [f"{path}: {reason} (its trainers are not listed)" for path, reason in TRAINER_REGISTRY.broken.items()]
    return "\n".join(lines or ["no trainers"]) + "\n"


def _show(text: str) -> int:
    sys.stdout.write(text)
    return OK


def _unforeseen(error: Exception) -> str:
    from train.error_advice import explained

    text = f"{explained(error)}\n`--debug` shows the traceback."
    return "\n".join(filter(None, (text, doctor_hint(error, "train"))))


def _of_data(error: Exception) -> str:
    """Say a DataError, or a file that could not be opened: the system's own words name no line."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    from train.error_advice import explained

    return explained(error)


def _report(arguments: argparse.Namespace, text: str, code: int) -> int:
    if arguments.debug:
        traceback.print_exc()
    rank = int(os.environ.get("RANK") or 0)
    if rank and (code == USAGE or isinstance(sys.exc_info()[1], ElsewhereError | KeyboardInterrupt)):
        return code  # the main process says the same
    # What a callback was told to do is no error.
    head = "" if getattr(sys.exc_info()[1], "planned", False) else f"error in process {rank}: " if rank else "error: "
    sys.stderr.write(f"{head}{text}\n")
    return code
