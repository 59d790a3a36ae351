"""Names that can be pointed at other models: a client that knows one fixed name is led on to the newest checkpoint.

They are kept in a file, which is whole on the disk before a change is acknowledged, so that they outlive the process.
"""

import json
import re
import threading
from pathlib import Path

from service.sampling.served_models import ServedModels, UnknownModelError
from service.web.openai_error import MISSING, NOT_FOUND, RequestError, wrong
from storage.errors import OutputError
from storage.files import write_atomically

_NAME = re.compile(r"[\w][\w.:@/+-]{0,199}")
_SETTING = "folder"  # by which a person chooses where the file is


class Aliases:
    """The aliases of a service. Any thread may use it.

    Args:
        models: the models, which are asked for by these names too.
        file: where they are kept; None for in memory alone.

    Raises:
        OutputError: the file is there, and is no list of aliases.
    """

    def __init__(self, models: ServedModels, file: Path | None = None) -> None:
        self._models, self._file = models, file
        self._lock = threading.Lock()
        for name, target in _read(file).items():
            models.point(name, target)

    def all(self) -> dict[str, str]:
        """Return each alias with the model that it stands for."""
        return self._models.aliases()

    def target(self, name: str) -> str:
        """Return what an alias stands for.

        Raises:
            RequestError: there is no such alias.
        """
        known = self.all()
        if name not in known:
            told = f"there is no alias {name!r}; there are: {', '.join(known) or 'none'}"
            raise RequestError(told, None, 404, NOT_FOUND, "alias_not_found")
        return known[name]

    def point(self, name: str, target: object) -> None:
        """Let a name stand for a model from now on, for requests that have not come yet.

        Args:
            name: the alias.
            target: name of a model, such as the path of a checkpoint.

        Raises:
            RequestError: the name can't be used, or there is no such model.
            OutputError: the file can't be written.
        """
        if not _NAME.fullmatch(name) or "://" in name:
            raise RequestError(
                f"the alias {name!r} can't be used: it must be 1 to 200 letters, digits and any of - _ . : @ / +, and "
                "no address"
            )
        if not isinstance(target, str):
            raise wrong("model", target, "it must be the name of a model, such as tinker://.../sampler_weights/...",
                        MISSING)  # fmt: skip
        with self._lock:
            known = self.all()
            if target in known:
                raise RequestError(f"model is {target!r}, an alias itself: give the model that it stands for, "
                                   f"{known[target]!r}", "model")  # fmt: skip
            try:
                self._models.find(target)
            except UnknownModelError as error:
                raise RequestError(str(error), "model", 404, NOT_FOUND, "model_not_found") from error
            if name not in known and name in self._models.names():
                raise RequestError(f"{name!r} is a model itself: choose another name for the alias", None, 409)
            self._write({**known, name: target})
            self._models.point(name, target)

    def remove(self, name: str) -> None:
        """Forget an alias.

        Raises:
            RequestError: there is no such alias.
            OutputError: the file can't be written.
        """
        with self._lock:
            self.target(name)
            self._write({each: target for each, target in self.all().items() if each != name})
            self._models.unpoint(name)

    def _write(self, aliases: dict[str, str]) -> None:
        if self._file is not None:
            write_atomically(self._file, json.dumps({"aliases": aliases}, indent=1).encode(), setting=_SETTING)


def _read(file: Path | None) -> dict[str, str]:
    if file is None or not file.exists():
        return {}
    try:
        found = json.loads(file.read_bytes())["aliases"]
        if not all(isinstance(each, str) for pair in found.items() for each in pair):
            raise TypeError("a name is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{file} can't be read as the service's aliases ({error}): repair it, or move it away and "
                          "point the aliases anew") from error  # fmt: skip
    return found
