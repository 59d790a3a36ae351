"""`--seeds N`: train with N seeds, show mean and spread, draw them."""

import itertools
import sys
from pathlib import Path

from beautilog import logger

from commands.seeds.choice import why_sequential
from commands.seeds.group import Group, Member, find_unfinished, refuse_other_settings, settings_of_group
from commands.seeds.lockstep import train_in_lockstep
from commands.seeds.sequential import build, train_sequentially
from config import ConfigError, ConfigParser
from storage.seed_groups import SeedGroup, table_lines
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer

_LARGEST_SEED = 2**32 - 1
_OK, _FAILED = 0, 4


def command(trainer_class: type[BaseTrainer], count: int) -> int:
    """Train with several seeds: `--seeds`.

    Args:
        trainer_class: class of the trainer.
        count: number of seeds; the first is the config's seed, each further one is one more.

    Returns:
        The exit code: 4 where a run failed.
    """
    group = _group(trainer_class, count)
    try:
        train_group(trainer_class, group)
    except BaseException as error:
        if group.path is not None:
            group.write("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    return finish(group, ConfigParser.peek(TRAINER_REGISTRY.section_of(trainer_class), "artifacts_dir"))


def train_group(trainer_class: type[BaseTrainer], group: Group, at_once: bool | None = None) -> None:
    """Train a group's members: at once where that can be and is faster, else one after the other, and say why.

    Args:
        trainer_class: class of the trainer.
        group: group whose members are trained.
        at_once: whether to train all members at once where that is possible; None does so where it is faster.
    """
    first: BaseTrainer | None = None
    if any(member.run for member in group.members):
        group.why = "each run goes on where its own checkpoint is"
    else:
        first = build(trainer_class, group.members[0], group)
        reason = why_sequential(first.run_context, len(group.members), faster_only=not at_once)
        group.why = "it was asked for" if at_once is False else reason or ""
    group.how = "one after the other" if group.why else "at once"
    logger.info(f"{len(group.members)} seeds {group.how}" + (f": {group.why}" if group.why else ""))
    if first is None or group.why:
        train_sequentially(trainer_class, group, first)
    else:
        rest = (build(trainer_class, member, group) for member in group.members[1:])
        train_in_lockstep(group, itertools.chain([first], rest))


def _group(trainer_class: type[BaseTrainer], count: int) -> Group:
    name, section = trainer_class.__name__, TRAINER_REGISTRY.section_of(trainer_class)
    which = BaseTrainer.options.resume
    if which and section in ConfigParser.sections():
        _go_on_from_settings(name, section, which)
    first = ConfigParser.peek(section, "seed")
    if first + count - 1 > _LARGEST_SEED:
        raise ConfigError([f"--seeds {count} counts up from seed = {first}, beyond the largest, {_LARGEST_SEED}."])
    seeds, label = range(first, first + count), BaseTrainer.options.label
    group = find_unfinished(name, seeds, which, ConfigParser.peek(section, "artifacts_dir")) if which else None
    if group is not None:
        if section in ConfigParser.sections():
            refuse_other_settings(group, ConfigParser.get(ConfigParser.sections()[section]))
        ended = sum(member.ended for member in group.members)
        logger.info(f"going on with {group.path}: {ended} of {count} runs have ended")
    group = group or Group(name, [Member(seed) for seed in seeds])
    group.label = label
    return group


def _go_on_from_settings(name: str, section: str, which: str) -> None:
    """Let the settings of the group that is gone on with count, but for those of the command line."""
    found = settings_of_group(name, which, ConfigParser.peek(section, "artifacts_dir"))
    if found is None:
        return
    config, first_seed = found
    ConfigParser.go_on_from(config, section, without=("artifacts_dir", "seed"))
    if "seed" not in ConfigParser.overrides():
        ConfigParser.override({"seed": str(first_seed)}, section)
    ConfigParser.check()


def finish(group: Group, artifacts_dir: Path) -> int:
    """Publish the best weights, write seeds.json, draw, show the tables; return the exit code.

    Args:
        group: group whose members have all ended.
        artifacts_dir: folder of all runs and published models.
    """
    found = group.read()
    whole = len(found.counted) == len(group.members)
    group.publish_best(artifacts_dir)
    group.write("finished" if whole else "failed")
    sys.stdout.write("\n".join(["", *table_lines(found)]) + "\n")
    if found.counted:
        picture = _draw(found, group.folder)
        sys.stdout.write(f"picture: {picture}\n")
    sys.stdout.write(f"numbers: {group.folder / 'seeds.json'}\n")
    return _OK if whole else _FAILED


def _draw(found: SeedGroup, folder: Path) -> Path:
    from evaluation.plots.seed_plots import plot_group  # matplotlib takes a second to import

    return plot_group(found, folder / "plots")[0]
