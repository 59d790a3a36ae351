"""What to do about a model that a hub doesn't give: the advice follows from the error."""

import difflib
import errno
import logging
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.zoo_manifest import ZooEntry

_unreachable = False  # whether the hub has not answered in this process
_YES = ("1", "on", "yes", "true")
_NETWORK = ("ConnectError", "ConnectTimeout", "ConnectionError", "ProxyError", "ReadTimeout", "URLError", "gaierror",
            "OfflineModeIsEnabled", "LocalEntryNotFoundError", "TimeoutError", "RemoteDisconnected")  # fmt: skip


def hub_error(error: BaseException, entry: ZooEntry, repository: str) -> ModelUnavailableError:
    """Explain why a repository of the Hugging Face hub can't be used.

    Args:
        error: what was raised by huggingface_hub, timm or transformers.
        entry: model that was wanted.
        repository: its id on the hub, `timm/resnet18.a1_in1k`.
    """
    names = {type(each).__name__ for each in _chain(error)}
    page = f"https://huggingface.co/{repository}"
    if full := _disk_full(error, entry, "HF_HOME"):
        return full
    if "GatedRepoError" in names:
        return ModelUnavailableError(
            f"{entry.where}: {repository} is gated: accept its terms on {page}, then `hf auth login`, or set HF_TOKEN."
        )
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return ModelUnavailableError(
            f"{entry.where}: the hub has no {repository}, or it is private and you aren't logged in (`hf auth login`). "
            f"Names are found on https://huggingface.co/models."
        )
    if names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return ModelUnavailableError(
            f"{entry.where}: {repository} has no file of weights that can be read here ({_said(error)}); "
            f"{page}/tree/main shows what it has."
        )
    if names & set(_NETWORK) or "offline" in str(error).lower() or "couldn't connect" in str(error).lower():
        return _no_network(error, entry, repository)
    return ModelUnavailableError(f"{entry.where}: {repository} can't be loaded: {_said(error)}")


def _no_network(error: BaseException, entry: ZooEntry, repository: str) -> ModelUnavailableError:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = f"models--{repository.replace('/', '--')}"
    offline = is_offline()
    said = "as was found before" if _unreachable else _said(error).rstrip(".")
    why = "HF_HUB_OFFLINE is set" if offline else f"the hub can't be reached ({said})"
    if not offline:
        _ask_no_more()
    again = "unset HF_HUB_OFFLINE here, or on" if offline else "on"
    return ModelUnavailableError(
        f"{entry.where}: the weights aren't on this machine and {why}. To have them, {again} a machine with a network: "
        f"`hf download {shlex.quote(repository)}`, and copy the folder {folder} of its cache "
        f"(~/.cache/huggingface/hub) to {cache / folder}."
    )


def _ask_no_more() -> None:
    """Let this process look into the hub's cache alone: each further model would try for half a minute."""
    from huggingface_hub import constants

    global _unreachable
    _unreachable = constants.HF_HUB_OFFLINE = True


def is_offline() -> bool:
    """Tell whether somebody has said that no hub is to be asked: HF_HUB_OFFLINE counts for all of them."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES


def url_error(error: BaseException, entry: ZooEntry, url: str, target: Path) -> ModelUnavailableError:
    """Explain why a file of weights can't be downloaded or read.

    Args:
        error: what was raised.
        entry: model that was wanted.
        url: where the file is.
        target: file on this machine that it is downloaded to.
    """
    if full := _disk_full(error, entry, "TORCH_HOME"):
        return full
    if target.exists():
        return ModelUnavailableError(
            f"{entry.where}: {target} can't be read: {_said(error)} If its download broke off, remove it and try again."
        )
    why = "HF_HUB_OFFLINE is set" if is_offline() else f"can't be downloaded ({_said(error).rstrip('.')})"
    return ModelUnavailableError(
        f"{entry.where}: the weights aren't on this machine and {why}. To have them: download {url} elsewhere, and put "
        f"it at {target}."
    )


def no_such_model(entry: ZooEntry, library: str, names: Iterable[str], command: str) -> ModelUnavailableError:
    """Say that a library has no model of a name, and which names are near.

    Args:
        entry: model that was wanted.
        library: what lacks it, with its version.
        names: what the library has.
        command: Python code that lists them.
    """
    known = list(names)
    given, architecture = entry.identifier.lower(), entry.identifier.lower().partition(".")[0]
    first = {name.partition(".")[0]: name for name in reversed(known)}  # one for each architecture
    of_it = [name for name in known if name.partition(".")[0] == architecture]
    near = difflib.get_close_matches(given, of_it, n=3, cutoff=0.0)
    meant = near or [first[name] for name in difflib.get_close_matches(architecture, first, n=3, cutoff=0.6)]
    hint = f"Did you mean {' or '.join(f'{entry.source}/{name}' for name in meant)}?" if meant else ""
    tail = f" `{command}` lists the {len(known)} that it has."
    return ModelUnavailableError(
        f"{entry.where}: {library} has no pretrained model {entry.identifier}. {hint}{tail if hint else tail.lstrip()}"
    )


def _disk_full(error: BaseException, entry: ZooEntry, variable: str) -> ModelUnavailableError | None:
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" ({each.filename})" if each.filename else ""
            return ModelUnavailableError(
                f"{entry.where}: the disk is full{place}: make room, or set {variable} to a folder on another disk."
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    """Return the first line of what an error says, with its kind, as a sentence."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)  # it tells each try; the error says it once
