"""What a run can fail with, beside `ConfigError` and `DataError`. Each message says what to do."""


class TrainerContractError(TypeError):
    """A trainer class that breaks the contract: a missing part or loss function, a loss that is no scalar."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class ElsewhereError(TrainingError):
    """What another process of the run has failed with, and says itself."""


class ScaffoldError(Exception):
    """A trainer that cannot be made from a model: says what was given and what would do."""
