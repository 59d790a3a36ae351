"""What is known of a batch of any kind."""

import torch

from data.batch_size import batch_size_of
from data.batches import describe


def test_batch_size_is_found_in_every_kind_of_batch():
    rows = torch.zeros(5, 3)
    assert batch_size_of(rows) == 5
    assert batch_size_of({"names": ["a"], "x": rows}) == 5
    assert batch_size_of([{"deep": (rows,)}]) == 5
    assert batch_size_of({"x": rows, "batch_size": 4}) == 4, "a declared size wins"
    assert batch_size_of(torch.tensor(3.0)) == 1
    assert batch_size_of({"text": "no tensor"}) == 1


def test_describe_shows_shapes_and_dtypes():
    text = describe({"x": torch.zeros(2, 3), "y": [torch.zeros(1, dtype=torch.int64)]})
    assert text == "{x: tensor (2, 3) float32, y: list of 1: tensor (1,) int64}"
