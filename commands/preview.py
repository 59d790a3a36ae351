"""What a trainer would learn of its text: `--preview`."""

import sys

from storage.log_lines import log_to_stderr, wants_colours
from train.base_trainer import BaseTrainer, RunOptions
from train.errors import TrainerContractError


def command(trainer_class: type[BaseTrainer], count: int) -> int:
    """Build a trainer and show the first rows of its text as they are trained on: `--preview`.

    A trainer that can be asked has a method `preview(count, colour)` that returns lines of text; `data.text_preview`
    makes them of rows of tokens.

    Args:
        trainer_class: trainer whose text is shown.
        count: number of rows.

    Returns:
        The exit code.

    Raises:
        TrainerContractError: the trainer has no such method.
    """
    show = getattr(trainer_class, "preview", None)
    if not callable(show):
        raise TrainerContractError(
            f"{trainer_class.__name__} has no text to preview. --preview is for trainers of language models: those "
            "with a method preview(count, colour) that returns lines."
        )
    log_to_stderr()
    BaseTrainer.options = RunOptions(dry_run=True, preview=True)
    lines = show(trainer_class(), count, wants_colours())
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
