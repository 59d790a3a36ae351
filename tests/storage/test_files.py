"""Files that are whole or as they were."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch

from storage.errors import OutputError
from storage.files import write_atomically, write_json


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*metrics\.json: No space left on device \([\d,]+ bytes free"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_json_has_no_nan_and_takes_tensors(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.nan, math.inf, torch.tensor(0.5), torch.arange(2)], 3: None})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, None, 0.5, [0, 1]], "3": None}


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "Permission denied. Give this user the right to write in {folder}, or set artifacts_dir to "),
        (errno.EROFS, "Read-only file system. {folder} can only be read: set artifacts_dir to another folder."),
        (errno.EMFILE, "Too many open files. Too many files are open: raise `ulimit -n`, or set num_workers lower"),
        (errno.EIO, "Input/output error. The disk, or the network drive, fails: look at it, or set artifacts_dir"),
        (errno.ENAMETOOLONG, "File name too long. Give the run a shorter path: set artifacts_dir to another folder."),
        (errno.EDQUOT, "Disk quota exceeded ("),
    ],
)
def test_the_advice_follows_from_the_error(number, advice, tmp_path):
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(OutputError) as caught:
        write_atomically(tmp_path / "file", refuse)
    assert f"cannot write {tmp_path / 'file'}: {advice.format(folder=tmp_path)}" in str(caught.value)
    assert ("bytes free" in str(caught.value)) == (number == errno.EDQUOT)


def test_a_file_in_the_way_is_named_and_so_is_the_key_that_chooses(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError) as caught:
        write_atomically(tmp_path / "runs" / "1" / "table.json", b"{}", setting="performance")
    told = f"{tmp_path / 'runs'} is a file where a folder should be: move it away, or set performance to"
    assert told in str(caught.value)
