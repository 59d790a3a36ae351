"""What is told of a model that a hub doesn't give follows from the error."""

import errno
import re

import pytest

import data.pretrained.hub_errors as hub_errors
from data.pretrained.hub_errors import hub_error, url_error
from data.pretrained.zoo_manifest import zoo_entry

ENTRY = zoo_entry("timm/resnet18.a1_in1k")


class GatedRepoError(Exception):
    """By its name like that of huggingface_hub, which needs a response."""


class RepositoryNotFoundError(Exception):
    """The same."""


class EntryNotFoundError(Exception):
    """The same."""


def caused_by(error):
    """Return an error of a library that was raised from another."""
    outer = RuntimeError("it failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            GatedRepoError("403"),
            "timm/x is gated: accept its terms on https://huggingface.co/timm/x, then `hf auth login`",
        ),
        (RepositoryNotFoundError("404"), "the hub has no timm/x, or it is private and you aren't logged in"),
        (EntryNotFoundError("404"), "timm/x has no file of weights that can be read here"),
        (
            OSError(errno.ENOSPC, "No space left", "/cache/blob"),
            "the disk is full (/cache/blob): make room, or set HF_HOME",
        ),
        (ValueError("odd\nmore"), "timm/x can't be loaded: RuntimeError: it failed."),
    ],
)
def test_what_a_hub_says(error, text):
    told = str(hub_error(caused_by(error), ENTRY, "timm/x"))
    assert text in told and told.startswith("model timm/resnet18.a1_in1k: ")


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(hub_errors, "_unreachable", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    told = str(hub_error(caused_by(ConnectionError("no route")), ENTRY, "timm/x"))
    assert "the hub can't be reached (RuntimeError: it failed)" in told
    assert "`hf download timm/x`, and copy the folder models--timm--x of its cache" in told
    assert f"(~/.cache/huggingface/hub) to {hub}/hub/models--timm--x." in told
    assert constants.HF_HUB_OFFLINE is True
    assert "(as was found before)" in str(hub_error(caused_by(ConnectionError()), ENTRY, "timm/y"))


def test_files_of_an_address(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    target = tmp_path / "a.pth"
    told = str(url_error(OSError("no route"), ENTRY, "https://x/a.pth", target))
    assert "can't be downloaded (OSError: no route). To have them: download https://x/a.pth elsewhere" in told
    assert f"put it at {target}." in told
    full = str(url_error(OSError(errno.ENOSPC, "full"), ENTRY, "https://x/a.pth", target))
    assert "the disk is full: make room, or set TORCH_HOME" in full
    target.write_bytes(b"half")
    broken = str(url_error(ValueError("no archive"), ENTRY, "https://x/a.pth", target))
    assert re.search(r"a.pth can't be read: ValueError: no archive. If its download broke off, remove it", broken)
