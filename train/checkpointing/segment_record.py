"""Writes down each segment of a run: the process that began it, and each that went on with it."""

import dataclasses
import socket
import sys

from beautilog import logger

from config import ConfigParser
from constants.settings import CHANGE_NO_NUMBER
from storage.errors import OutputError
from storage.run_folder import RunFolder
from storage.saved_run import RunDamagedError, read_settings, settings_in
from storage.segments import RunSegments, Segment, now, read_segments, write_segments
from train.checkpointing.provenance import loaders_of, provenance
from train.checkpointing.resume_check import KEPT
from train.context import RunContext


def begin_segment(run: RunContext) -> None:
    """Write config.ini with the settings in force, and a new segment behind those of earlier processes. Once a process.

    Args:
        run: run that is about to train; one that is resumed has its checkpoint's state.
    """
    if run.segment_begun or run.options.dry_run or not run.process_group.is_main_process:
        return
    run.segment_begun = True
    folder, progress = run.folder, run.record.progress
    goes_on = bool(progress.epoch or progress.step or run.position.validating)
    before, known = _settings_before(folder) if goes_on else {}, read_segments(folder.path)
    text = ConfigParser.dump(run.config)
    settings = settings_in(text)
    if before:  # what lives on in the states of optimizer and scheduler is as it was
        for name in KEPT & before.keys() & settings.keys():
            text = text.replace(f"\n{name} = {settings[name]}\n", f"\n{name} = {before[name]}\n")
        settings = settings_in(text)
    del settings[""]  # the section's name
    facts = run.provenance or provenance(run.device, loaders_of(run))
    changed = {
        name: [before[name], value]
        for name, value in settings.items()
        if name in before and before[name] != value and name not in CHANGE_NO_NUMBER
    }
    segment = Segment(
        started=now(),
        epochs=run.config.epochs,
        from_epoch=progress.epoch,
        host=socket.gethostname(),
        command=[sys.executable, *sys.argv],
        working_directory=str(facts["working_directory"]),
        device=str(facts["device"]["type"]),
        versions={"python": facts["python"], **facts["packages"]},
        commit=(facts["git"] or {}).get("commit"),
        settings=settings,
        changed=changed,
    )
    earlier = known.segments
    if goes_on and not earlier:  # of a run from before segments were written
        planned = before.get("epochs", "")
        epochs = int(planned) if planned.isdecimal() else progress.epoch
        earlier = (Segment(started="", epochs=epochs, settings=before, state="", to_epoch=progress.epoch),)
    folder.write_text("config.ini", text)
    write_segments(folder.path, RunSegments(run.name, run.options.part_of or known.part_of, (*earlier, segment)))


def _settings_before(folder: RunFolder) -> dict[str, str]:
    try:
        return {name: value for name, value in read_settings(folder.path).items() if name}
    except RunDamagedError as error:
        logger.warning(f"{error} The settings that the run had are not known.")
        return {}


def end_segment(run: RunContext, state: str) -> None:
    """Write how the segment ended; a disk that is full must not hide what ended it.

    Args:
        run: run whose process is about to leave it.
        state: finished, early_stopped, pruned, interrupted or failed.
    """
    if not run.segment_begun:
        return
    known = read_segments(run.folder.path)
    if not known.segments:
        return
    done = run.record.progress.epoch - run.position.validating
    last = dataclasses.replace(known.segments[-1], ended=now(), state=state, to_epoch=done)
    try:
        write_segments(run.folder.path, dataclasses.replace(known, segments=(*known.segments[:-1], last)))
    except OutputError as error:
        logger.warning(f"segments.json does not say how the run ended: {error}")
