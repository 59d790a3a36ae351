"""Names under which clients reach weights, and the versions that these have."""

from dataclasses import dataclass


class UnknownModelError(LookupError):
    """No model is served under this name. The text names those that are."""


@dataclass(frozen=True)
class ServedModel:
    """What a name stands for.

    Attributes:
        name: name that clients send.
        version: id of the weights, which no other weights have (`llm.engine.version_of`).
        adapter: adapter or version in the sampler's bank; None for the base model.
    """

    name: str
    version: str
    adapter: str | None = None


class ServedModels:
    """The models of a service. Any thread may use it."""

    def __init__(self, *models: ServedModel) -> None:
        self._models = {model.name: model for model in models}

    def put(self, model: ServedModel) -> None:
        """Serve a model; one of the same name is replaced, for requests that have not begun."""
        self._models = {**self._models, model.name: model}

    def remove(self, name: str) -> None:
        """Serve a model no more."""
        self._models = {each: model for each, model in self._models.items() if each != name}

    def names(self) -> list[str]:
        """Return the names, oldest first."""
        return list(self._models)

    def find(self, name: str) -> ServedModel:
        """Return what a name stands for now.

        Raises:
            UnknownModelError: nothing.
        """
        models = self._models
        if name not in models:
            raise UnknownModelError(f"there is no model {name!r}; there are: {', '.join(models) or 'none'}")
        return models[name]
