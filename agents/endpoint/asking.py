"""Many questions to a model within an effect."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.endpoint.ask_many import kept_lines
from agents.endpoint.endpoint import Endpoint, EndpointError, Reply
from constants.paths import PACKAGE_ROOT
from storage.files import write_atomically

Process = Callable[[Path, str, Sequence[str]], tuple[int, str]]
"""Runs a command to its end, as `agents.context.TuneContext.process` does."""


def own_command(module: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs `main` of a module of ours in a process, in whatever folder.

    Args:
        module: its name, such as `agents.endpoint.ask_many`.
        words: what its `main` is given.
    """
    begin = f"import sys; sys.path.insert(0, {str(PACKAGE_ROOT)!r})"
    code = f"{begin}; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return (sys.executable, "-c", code, *words)


def ask_all(
    place: Path, name: str, endpoint: Endpoint, requests: Sequence[dict[str, Any]], process: Process
) -> dict[str, Reply]:
    """Ask a model many things; what a killed attempt has kept in the folder is not asked again.

    Args:
        place: folder of the effect.
        name: name of the files there.
        endpoint: where the model is.
        requests: `id`, `messages`, `max_tokens`, and maybe `temperature` and `seed`.
        process: runs a command to its end.

    Returns:
        The replies by id, all of them.

    Raises:
        EndpointError: it can't be asked.
    """
    asked, said = place / f"{name}-asked.jsonl", place / f"{name}-said.jsonl"
    write_atomically(asked, "".join(f"{json.dumps(one)}\n" for one in requests).encode())
    words = ["--asked", str(asked), "--said", str(said), "--address", endpoint.address, "--model", endpoint.model]
    if endpoint.key:
        words += ["--key", endpoint.key]
    code, text = process(place, name, own_command("agents.endpoint.ask_many", *words))
    if code:
        lines = text.strip().splitlines() or [f"asking {endpoint.address} ended with the exit code {code}"]
        raise EndpointError(lines[-1].removeprefix("error: "))
    found = {str(one["id"]): Reply(one["text"], one["finish"], tuple(one["tokens"])) for one in kept_lines(said)}
    if missing := [one["id"] for one in requests if one["id"] not in found]:
        raise EndpointError(f"{said} lacks the answer to {missing[0]}")
    return found
