"""Files that are whole or as they were."""

import json
import math

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
