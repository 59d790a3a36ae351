"""Tensors in one: each at its own place, as a tensor of its own would lie."""

import torch

from model.flat_tensors import flattened, views, zeros_for


def test_tensors_come_back_as_they_were_and_lie_as_their_own_would():
    tensors = [torch.randn(3, 5), torch.randn(()), torch.randn(16), torch.randn(1, 261, 3)]
    flat = flattened(tensors)
    found = views(flat, tensors)
    assert all(map(torch.equal, found, tensors))
    assert torch.isclose(flat.norm(), torch.cat([each.flatten() for each in tensors]).norm())  # nothing between them
    assert all(each.data_ptr() % 64 == 0 and each.is_contiguous() for each in found)
    empty, parts = zeros_for(tensors)
    parts[1].add_(2.0)
    assert empty.sum() == 2.0 and [each.shape for each in parts] == [each.shape for each in tensors]
