"""Trainers that have another name than they once had. The old names go on working, in commands and in saved runs."""

RENAMED_TRAINERS = {"FineTuneTrainer": "GroundTruthTrainer"}  # old name: present name


def present_name(trainer: str) -> str:
    """Return a trainer's present name.

    Args:
        trainer: class name, as a saved run, a section of config.ini or a user has it.
    """
    return RENAMED_TRAINERS.get(trainer, trainer)


def former_names(trainer: str) -> list[str]:
    """Return the names that a trainer once had.

    Args:
        trainer: its present class name.
    """
    return [old for old, new in RENAMED_TRAINERS.items() if new == trainer]
