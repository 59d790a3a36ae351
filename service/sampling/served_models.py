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
    """The models of a service, and further names (aliases) that stand for one of them. Any thread may use it."""

    def __init__(self, *models: ServedModel) -> None:
        self._models = {model.name: model for model in models}
        self._aliases: dict[str, str] = {}

    def put(self, model: ServedModel) -> None:
        """Serve a model; one of the same name is replaced, for requests that have not begun."""
        self._models = {**self._models, model.name: model}

    def remove(self, name: str) -> None:
        """Serve a model no more."""
        self._models = {each: model for each, model in self._models.items() if each != name}

    def point(self, alias: str, name: str) -> None:
        """Let an alias stand for a model; for another one than before from now on."""
        self._aliases = {**self._aliases, alias: name}

    def unpoint(self, alias: str) -> None:
        """Let an alias stand for nothing."""
        self._aliases = {each: name for each, name in self._aliases.items() if each != alias}

    def aliases(self) -> dict[str, str]:
        """Return each alias with the name of its model, which need not be there any more."""
        return dict(self._aliases)

    def names(self) -> list[str]:
        """Return the names, oldest first, without aliases."""
        return list(self._models)

    def resolve(self, name: str) -> str:
        """Return the name of the model that an alias stands for now; another name as it is."""
        return self._aliases.get(name, name)

    def find(self, name: str) -> ServedModel:
        """Return what a name stands for now.

        Raises:
            UnknownModelError: nothing.
        """
        models, target = self._models, self.resolve(name)
        if target not in models:
            what = f"model {name!r}" if target == name else f"model {target!r} any more, for which {name!r} stands"
            raise UnknownModelError(f"there is no {what}; there are: {', '.join(self._known()) or 'none'}")
        return models[target]

    def _known(self) -> list[str]:
        return [*self._models, *(alias for alias, name in self._aliases.items() if name in self._models)]
