"""What a run can fail with, beside `ConfigError` and `DataError`. Each message says what to do."""


class TrainerContractError(TypeError):
    """A trainer class that breaks the contract: a missing part or hook, a loss that is no scalar."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class OutputError(TrainingError):
    """A file of the run that cannot be written: no permission, no space."""


class ElsewhereError(TrainingError):
    """What another process of the run has failed with, and says itself."""


class ResumeError(Exception):
    """A run that cannot be resumed: there is none, or its checkpoints don't fit the trainer."""


class ScaffoldError(Exception):
    """A trainer that cannot be made from a model: says what was given and what would do."""
