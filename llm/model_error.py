"""What every reader and writer of language models raises."""

from data.data_error import DataError


class ModelError(DataError):
    """A language model or an adapter that can't be used: says what was given, what is allowed, what to do."""
