"""What can go wrong with a run's files. Each message says what to do."""


class OutputError(RuntimeError):
    """A file of the run that cannot be written: no permission, no space."""


class ResumeError(Exception):
    """A run that cannot be resumed: there is none, or its checkpoints don't fit the trainer."""
