"""`--export`: write what a run has trained once more: an adapter, a whole language model, an image classifier."""

import sys
from pathlib import Path

from commands.chat.request import ModelRequest, open_model, run_of
from config import ConfigError, ConfigParser
from config.export_config import ExportConfig
from llm.model_card import TOLD_SETTINGS, data_fact, told_figures
from llm.model_error import ModelError
from llm.model_export import export_adapter, export_model
from llm.saved_model import SavedModel, is_model_folder
from storage.files import output_errors, write_atomically
from storage.log_lines import log_to_stderr
from storage.saved_run import RunDamagedError, RunNotFoundError, read_metrics, read_settings
from train.images.classifier_files import CLASSIFIER_FILES, is_classifier_run
from train.loop.long_phases import long_phase


def command(request: ModelRequest) -> int:
    """Export a model.

    Args:
        request: which model, and where to; `ConfigParser` has the settings of the export.

    Returns:
        The exit code.

    Raises:
        ModelError: the model can't be loaded, or not merged.
        ConfigError: the settings don't go together with the model.
        OutputError: a file can't be written.
    """
    config = ConfigParser.get(ExportConfig)
    run = _run(request)
    if run is not None and is_classifier_run(run):
        return _copy_classifier(request, run)
    log_to_stderr()
    with long_phase(f"loading {request.text}"):
        model = open_model(request, config.device)
    for line in model.lines():
        sys.stderr.write(f"{line}\n")
    if model.weights is None:
        raise ModelError(f"{model.base.source} is a base model: there is nothing to export of a training")
    if config.merge and model.adapter is None:
        raise ConfigError(["merge = on is for an adapter; of this model all weights were trained: it is whole already"])
    folder = _folder(request, run, model, config.merge)
    facts = {} if run is None else _facts(run)
    if model.adapter is not None and not config.merge:
        export_adapter(folder, model.base, model.adapter, facts, model.record)
        sys.stdout.write(f"the adapter is in {folder}\n")
        return 0
    done = export_model(folder, model.base, model.adapter, facts, model.record)
    change = f"; by merging a logit changes by {done.largest_logit_change:.2g} at most" if model.adapter else ""
    sys.stdout.write(f"the whole model is in {folder}{change}\n")
    return 0


def _copy_classifier(request: ModelRequest, run: Path) -> int:
    """Copy what a run of ImageClassifier has left to a folder."""
    exported = run / "model"
    if not all((exported / name).is_file() for name in CLASSIFIER_FILES):
        raise ConfigError([f"run {run.name} has not ended, so it has no model yet: --resume {run.name} finishes it"])
    if request.out is None:
        sys.stdout.write(f"the classifier is in {exported}\n")
        return 0
    folder = request.out.expanduser()
    with output_errors(folder, "--out"):
        others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        strange = [name for name in others if name not in CLASSIFIER_FILES]
        if folder.is_file() or (strange and not request.force):
            what = "is a file" if folder.is_file() else f"has other things in it, such as {strange[0]}"
            raise ConfigError([f"--out {folder} {what}: give another folder{', or --force' if strange else ''}"])
        folder.mkdir(parents=True, exist_ok=True)
    for name in CLASSIFIER_FILES:
        write_atomically(folder / name, (exported / name).read_bytes(), setting="--out")
    sys.stdout.write(f"the classifier is in {folder}\n")
    return 0


def _run(request: ModelRequest) -> Path | None:
    """Return the run that is meant; None where a folder is."""
    return None if is_model_folder(Path(request.text).expanduser()) else _known_run(request)


def _known_run(request: ModelRequest) -> Path | None:
    try:
        return run_of(request)
    except RunNotFoundError:
        return None  # a base model, or nothing: loading it says so


def _folder(request: ModelRequest, run: Path | None, model: SavedModel, merge: bool) -> Path:
    """Return where to write; a folder with other things in it is left alone."""
    name = "merged" if merge else "model" if model.adapter is None else "adapter"
    if request.out is None:
        if run is None:
            raise ConfigError([f"{request.text} is a folder, not a run: say where to, --out FOLDER"])
        return run / name
    folder = request.out.expanduser()
    if run is not None and folder.resolve() == run.resolve():
        raise ConfigError([f"--out {folder} is the run itself: without --out the export goes into it"])
    with output_errors(folder, "--out"):
        strange = folder.is_dir() and any(folder.iterdir()) and not is_model_folder(folder)
    if folder.is_file() or (strange and not request.force):
        what = "is a file" if folder.is_file() else "is a folder with other things in it"
        raise ConfigError([f"--out {folder} {what}: give another folder{'' if folder.is_file() else ', or --force'}"])
    return folder


def _facts(run: Path) -> dict[str, str]:
    """Return what the model card tells of a run."""
    try:
        settings, summary = read_settings(run), dict(read_metrics(run).get("summary") or {})
    except RunDamagedError as error:
        sys.stderr.write(f"the model card lacks figures: {error}\n")
        settings, summary = {}, {}
    accounts = {name: value for name, value in summary.items() if isinstance(value, dict) and "sha256" in value}
    facts = {name.removesuffix("_data"): data_fact(value) for name, value in accounts.items()} | {"run": run.name}
    facts |= {name: settings[name] for name in TOLD_SETTINGS if name in settings}
    return facts | told_figures(summary)
