"""Files of the served model's tokenizer, where clients look for them: in a folder, or as a hub's cache has them.

Clients that know a model by its name alone ask transformers for the tokenizer of that name: the cache of the hub, in
HF_HOME, is the one place where it looks without a network.
"""

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from llm.base_model import BaseModel
from storage.errors import OutputError
from storage.files import output_errors, write_atomically

_MARK = ".menagerie"  # beside what this program wrote
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def write_tokenizer(base: BaseModel, folder: Path) -> None:
    """Write a tokenizer as transformers reads it.

    Args:
        base: the model that it belongs to.
        folder: folder for its files.

    Raises:
        OutputError: they can't be written.
    """
    with output_errors(folder, "folder"):
        folder.mkdir(parents=True, exist_ok=True)
        base.tokenizer.save_pretrained(str(folder))
        # Without it clients look for the model's type on the hub.
        kind = base.config.get("model_type", "llama")
        (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")


def write_hub_tokenizer(base: BaseModel, name: str, home: Path) -> Path:
    """Write a tokenizer into a cache of the hub, so that it is found by the model's name without a network.

    Args:
        base: the model that it belongs to.
        name: name under which clients know the model.
        home: folder that HF_HOME shall name; the cache is in its folder hub.

    Returns:
        The folder that was written.

    Raises:
        OutputError: it can't be written, or another model of this name is there.
    """
    if not _HUB_NAME.fullmatch(name) or "--" in name or ".." in name:
        raise OutputError(f"{name!r} is no name that a hub has: serve the model with --name ORG/NAME")
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    if place.is_dir() and not (place / _MARK).is_file():
        raise OutputError(f"{place} is of another model {name}, from the hub: serve yours with another --name")
    with output_errors(place, "--tokenizer-for"), tempfile.TemporaryDirectory() as made:
        files = Path(made)
        write_tokenizer(base, files)
        digest = hashlib.sha1(usedforsecurity=False)  # of 40 digits, as a commit's
        for file in sorted(files.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        snapshot = place / "snapshots" / digest.hexdigest()
        snapshot.mkdir(parents=True, exist_ok=True)
        (place / _MARK).touch()
        for file in files.iterdir():
            shutil.copyfile(file, snapshot / file.name)
    write_atomically(place / "refs" / "main", snapshot.name.encode(), setting="--tokenizer-for")
    return place
