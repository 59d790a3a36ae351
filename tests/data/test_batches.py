"""What is known of a batch of any kind."""

from types import SimpleNamespace

import torch
from torch.nn.utils.rnn import pack_sequence

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


def test_batch_size_of_what_holds_more_than_one_length():
    longer, shorter = torch.zeros(7, 2), torch.zeros(3, 2)
    assert batch_size_of([longer, shorter]) == 2, "samples of different length"
    assert batch_size_of((longer, torch.zeros(2, 90, dtype=torch.int64))) == 7, "two parts of one batch"
    assert batch_size_of({"boxes": [longer, shorter], "labels": torch.zeros(2)}) == 2
    assert batch_size_of(["a", "b", "c"]) == 3
    assert batch_size_of(torch.zeros(0, 4)) == 0
    assert batch_size_of(pack_sequence([longer, shorter])) == 2
    assert batch_size_of(torch.nested.nested_tensor([longer, shorter], layout=torch.jagged)) == 2
    assert batch_size_of(torch.zeros(4, 5).to_sparse_csr()) == 4
    assert batch_size_of(SimpleNamespace(num_graphs=6, x=longer)) == 6


def test_describe_of_other_layouts():
    assert describe(torch.zeros(2, 3).to_sparse()) == "sparse_coo tensor (2, 3) float32"
    assert describe(pack_sequence([torch.zeros(2, 3)])) == "PackedSequence of 1: tensor (2, 3) float32"
