"""What the engine raises. Whatever it is, the call has changed nothing."""

from llm.model_error import ModelError


class EngineError(ModelError):
    """A call that can't be done: says what was given, what is allowed, what to do."""


class UnknownAdapterError(EngineError):
    """There is no adapter, or no version, of this name."""


class NonFiniteError(EngineError):
    """A number became infinite or NaN."""


class PassFailedError(EngineError):
    """Computing failed, such as for want of memory: no fault of the request's. Its cause is what was raised."""
