"""A group of runs that differ in the seed alone, and its folder artifacts/models/<model name>/seeds/<id>/."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from beautilog import logger

from config import BaseTrainerConfig, ConfigParser
from constants.renamed import present_name
from constants.settings import CHANGE_NO_NUMBER
from storage.errors import ResumeError
from storage.files import output_errors, write_json
from storage.run_folder import RunFolder
from storage.run_label import RunLabel, write_label
from storage.saved_run import FINISHED, Run, RunDamagedError, RunNotFoundError, read_settings, settings_in
from storage.seed_groups import FILE, PREFIX, SeedGroup, content_of, find_group, groups_in, read_group, runs_as_group
from train.base_trainer import BaseTrainer


@dataclass
class Member:
    """One of a group's runs.

    Attributes:
        run: id of the member's run; None before it began.
        ended: whether the run has come to its end, or failed, so that it is left alone.
    """

    seed: int
    run: str | None = None
    ended: bool = False


@dataclass
class Group:
    """What is known of a group while it is trained.

    Attributes:
        path: folder of the group; None until the first member has told where the runs are.
        how: way of training: `at once` or `one after the other`.
        why: reason for the way of training.
        label: name and note to give the group.
    """

    trainer: str
    members: list[Member]
    path: Path | None = None
    how: str = "one after the other"
    why: str = ""
    label: RunLabel = field(default_factory=RunLabel)

    @property
    def folder(self) -> Path:
        """Its folder, from the first member on."""
        if self.path is None:
            raise RuntimeError("no member of the group has told where its runs are")
        return self.path

    def enter(self, member: Member, trainer: BaseTrainer) -> None:
        """Note the run of a member that has just been built."""
        member.run = trainer.run_folder.id
        if self.path is None:
            self.path = _new_folder(trainer.run_folder.path.parent.parent / "seeds")
        write_label(self.path, self.label)
        self.write("running")

    def read(self) -> SeedGroup:
        """Read what its runs have measured so far."""
        return runs_as_group(self.folder, self.trainer, self.how, self._ids())

    def write(self, state: str) -> None:
        """Rewrite seeds.json.

        Args:
            state: state of the group: running, interrupted, failed or finished.
        """
        more = {"state": state, "why": self.why}
        write_json(self.folder / FILE, content_of(self.read(), self._ids(), **more), durable=True)

    def publish_best(self, artifacts_dir: Path) -> None:
        """Put the weights of the run that is best, by what it monitors, where other trainers load them.

        Args:
            artifacts_dir: folder of all runs and published models.
        """
        runs = {seed: run for seed, run in self.read().counted.items() if run.best_value is not None}
        if not runs:
            return
        seed, best = min(runs.items(), key=lambda item: item[1].monitor.sort_key(item[1].best_value))
        folder = RunFolder.of(best.path, artifacts_dir, self.folder.parent.parent.name)
        if (best.path / "model.safetensors").is_file():
            folder.publish()
        if folder.published is not None:
            logger.info(f"published: the weights of seed {seed}, whose {best.monitor.name} is the best")

    def _ids(self) -> dict[int, str | None]:
        return {member.seed: member.run for member in self.members}


def _new_folder(groups: Path) -> Path:
    """Make a folder named by the time; `mkdir` is atomic, so two groups started in one second get two."""
    name, number = f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}", 1
    with output_errors(groups):
        groups.mkdir(parents=True, exist_ok=True)
        while True:
            path = groups / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1


def find_unfinished(trainer: str, seeds: range, which: str, artifacts_dir: Path) -> Group | None:
    """Find a group to go on with.

    Args:
        trainer: class name of the trainer.
        seeds: seeds that are wanted; the group's may be fewer, and it gets the rest.
        which: group to find: `latest` or `seeds-latest`, a group's id or folder; `auto` is the latest, or None where
            there is none.
        artifacts_dir: folder of all runs and published models.

    Raises:
        ResumeError: there is none such, or it has other seeds.
    """
    path = _find(trainer, which, artifacts_dir)
    if path is None:
        return None
    content = read_group(path)
    known = {int(member["seed"]): member for member in content["members"]}
    if list(known) != list(seeds[: len(known)]):
        raise ResumeError(
            f"group {path.name} has the seeds {min(known)} to {max(known)}, --seeds {len(seeds)} with seed = "
            f"{seeds[0]} asks for {seeds[0]} to {seeds[-1]}: give --seeds {len(known)} or more, and seed={min(known)}."
        )
    runs = runs_as_group(path, trainer, content["how"], {seed: member["run"] for seed, member in known.items()}).runs
    members = [Member(seed, known.get(seed, {}).get("run"), _has_ended(runs.get(seed))) for seed in seeds]
    return Group(trainer, members, path)


def settings_of_group(trainer: str, which: str, artifacts_dir: Path) -> tuple[Path, int] | None:
    """Return the config.ini of a group's first run, whose settings all of it have, and the group's first seed.

    Args:
        trainer: class name of the trainer.
        which: group, as `find_unfinished` takes it.
        artifacts_dir: folder of all runs and published models.

    Raises:
        ResumeError: there is none such.
    """
    path = _find(trainer, which, artifacts_dir)
    members = [] if path is None else read_group(path)["members"]
    begun = [member for member in members if member["run"]]
    if path is None or not begun:
        return None
    return path.parent.parent / "runs" / begun[0]["run"] / "config.ini", int(members[0]["seed"])


def _find(trainer: str, which: str, artifacts_dir: Path) -> Path | None:
    ours = [path for path in groups_in(artifacts_dir) if _trainer_of(path) == trainer]
    path: Path | None
    if which in ("latest", "auto", f"{PREFIX}latest"):  # the newest of this trainer, as plot.py has it of all
        if not ours and which == "auto":
            return None
        path = ours[-1] if ours else None
    else:
        try:
            path = find_group(which, artifacts_dir)
        except RunNotFoundError:
            path = None
    if path is None or _trainer_of(path) != trainer:
        there = ", ".join(path.name for path in ours[-5:]) or "none"
        raise ResumeError(
            f"no group of seeds '{which}' of {trainer} in {artifacts_dir}; groups there: {there}. Start one without "
            "--resume; a single run is resumed without --seeds."
        )
    return path


def refuse_other_settings(group: Group, config: BaseTrainerConfig) -> None:
    """See to it that the runs which are added to a group are like those that it has: a mean over both is none.

    Args:
        group: group that is gone on with.
        config: resolved settings as they are now.

    Raises:
        ResumeError: a setting that changes numbers is another one.
    """
    began = [member.run for member in group.members if member.run is not None][:1]
    folder = group.folder.parent.parent / "runs" / "".join(began)
    then, now = read_settings(folder) if began else {}, settings_in(ConfigParser.dump(config))
    differ = [
        f"  {key}: {then[key]} then, {now[key]} now"
        for key in then.keys() & now.keys() - CHANGE_NO_NUMBER - {"", "seed"}
        if then[key] != now[key]
    ]
    if differ:
        raise ResumeError(
            f"group {group.folder.name} began with other settings; its runs can't be averaged with new ones:\n"
            + "\n".join(sorted(differ))
            + f"\nleave them out ({folder / 'config.ini'} holds those of the group, which go on by themselves), or "
            "start a group without --resume."
        )


def _has_ended(run: Run | None) -> bool:
    """Say whether a run is left alone: it is done, or its numbers went wrong, as they would again."""
    if run is None:
        return False
    return run.state in FINISHED or (run.state == "failed" and (run.path / "failure").is_dir())


def _trainer_of(path: Path) -> str | None:
    try:
        return present_name(str(read_group(path).get("trainer")))
    except RunDamagedError as error:
        logger.warning(f"skipped {path.name}: {error}")
        return None
