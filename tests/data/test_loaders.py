import dataclasses
import random
import re
from collections import OrderedDict, defaultdict
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from data.batches import tensors_in, to_device
from data.data_error import DataError
from data.loaders import make_loader, prefetch
from data.tensor_loader import TensorLoader


class Augmented:
    """Numbers, each with what three generators draw for it."""

    classes = ("even", "odd")

    def __init__(self, length: int = 23) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "drawn": torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])}


class InOneGo(Augmented):
    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{**self[index], "together": len(indices)} for index in indices]


class Endless(IterableDataset):
    def __iter__(self):
        yield from iter(int, 1)


def joined(loader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


# ------------------------------------------------------------------------------------------------------ make_loader


def test_order_and_augmentation_come_from_seed_and_epoch_with_any_number_of_workers():
    here = make_loader(Augmented(), 4, shuffle=True, seed=3)
    epochs = [joined(here) for _ in range(3)]
    assert not torch.equal(epochs[0]["index"], epochs[1]["index"]) and not same(epochs[0], epochs[1])
    assert len(epochs[0]["drawn"].flatten().unique()) == 3 * 23
    workers = make_loader(Augmented(), 4, shuffle=True, seed=3, num_workers=2)
    workers.set_epoch(1)
    assert same(joined(workers), epochs[1])
    next(iter(workers))  # a pass that is left early
    for epoch in (0, 2):  # the same workers live on
        workers.set_epoch(epoch)
        assert same(joined(workers), epochs[epoch])
    assert not same(joined(make_loader(Augmented(), 4, shuffle=True, seed=4)), epochs[0])


def test_the_order_is_that_of_a_tensor_loader():
    expected = torch.cat(list(TensorLoader(torch.arange(23), 4, shuffle=True, seed=3)))
    assert torch.equal(joined(make_loader(Augmented(), 4, shuffle=True, seed=3))["index"], expected)
    assert torch.equal(torch.cat(list(make_loader(torch.arange(23), 4, shuffle=True, seed=3))), expected)
    stored = TensorDataset(torch.arange(23))
    loader = make_loader(stored, 23, shuffle=True, seed=3)
    assert torch.equal(next(iter(loader))[0], expected) and loader.dataset is stored


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_generators_of_the_main_process_do_not_notice(num_workers):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    list(make_loader(Augmented(), 4, shuffle=True, num_workers=num_workers))
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


def test_a_loader_has_what_a_data_loader_has():
    loader = make_loader(Augmented(), 4, drop_last=True)
    assert isinstance(loader, DataLoader) and len(loader) == 5 and loader.batch_size == 4 and loader.drop_last
    assert len(loader.dataset) == 23 and loader.dataset[22]["index"] == 22 and loader.dataset.classes[1] == "odd"
    assert isinstance(loader.dataset.dataset, Augmented) and not hasattr(loader.dataset, "transform")
    assert joined(loader)["index"].tolist() == list(range(20))
    listed = make_loader(Augmented(), 4, collate_fn=lambda samples: [sample["index"] for sample in samples])
    assert list(listed)[-1] == [20, 21, 22]


def test_a_dataset_that_reads_batches_in_one_go_does_so():
    assert next(iter(make_loader(InOneGo(), 4)))["together"].tolist() == [4] * 4
    assert same(joined(make_loader(Augmented(), 4)), joined(make_loader(InOneGo(), 4)))
    halves = Subset(Augmented(), range(0, 23, 2))
    assert joined(make_loader(halves, 4))["index"].tolist() == list(range(0, 23, 2))


def test_settings_suit_workers_and_device(monkeypatch):
    plain, workers = make_loader(Augmented(), 4), make_loader(Augmented(), 4, num_workers=2)
    assert not plain.persistent_workers and plain.prefetch_factor is None and not plain.pin_memory
    assert workers.persistent_workers and workers.prefetch_factor == 4
    assert make_loader(Augmented(), 4, device="cuda").pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not make_loader(Augmented(), 4, device="auto").pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_loader(Augmented(), 4, device="auto").pin_memory


@pytest.mark.parametrize(
    ("dataset", "options", "text"),
    [
        (
            {"x": torch.zeros(3)},
            {},
            "make_loader needs a dataset with samples by index, not a mapping; use TensorLoader for it.",
        ),
        (
            Endless(),
            {},
            "make_loader needs a dataset with __len__ and __getitem__; Endless is not one. "
            "Use torch.utils.data.DataLoader itself for it.",
        ),
        (Augmented(), {"batch_size": 0}, "make_loader: batch_size is 0; it must be at least 1."),
        (Augmented(), {"num_workers": -1}, "make_loader: num_workers is -1; it must be at least 0."),
        (Augmented(), {"seed": -1}, "make_loader: seed is -1; it must be at least 0."),
    ],
)
def test_errors_say_what_is_wrong(dataset, options, text):
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        make_loader(dataset, **{"batch_size": 4, **options})


# -------------------------------------------------------------------------------------------------------- to_device


class Pair(NamedTuple):
    left: torch.Tensor
    right: Any


@dataclasses.dataclass(frozen=True)
class Sample:
    image: torch.Tensor
    name: str
    rest: Any = None


def nested() -> dict[str, Any]:
    counts = defaultdict(list, {"a": torch.zeros(2)})
    return {
        "plain": torch.zeros(3),
        "list": [torch.zeros(1), "word", 7, None],
        "tuple": (torch.zeros(1), np.zeros(2)),
        "pair": Pair(torch.zeros(1), torch.zeros(2)),
        "sample": Sample(torch.zeros(4), "cat", {"deep": [torch.zeros(5)]}),
        "ordered": OrderedDict(b=torch.zeros(1)),
        "default": counts,
        "view": MappingProxyType({"c": torch.zeros(1)}),
        "packed": pack_sequence([torch.zeros(3, 2), torch.zeros(1, 2)]),
    }


def test_all_tensors_of_a_batch_move_and_the_rest_stays():
    batch = nested()
    moved = to_device(batch, "meta")
    assert len(list(tensors_in(batch))) == len(list(tensors_in(moved))) == 12
    assert {tensor.device.type for tensor in tensors_in(batch)} == {"cpu"}, "the given one is not changed"
    devices = {name: {tensor.device.type for tensor in tensors_in(part)} for name, part in moved.items()}
    assert devices == {name: {"meta"} for name in batch} | {"packed": {"meta", "cpu"}}  # its lengths belong on the CPU
    types = {name: type(part) for name, part in batch.items()} | {"view": dict}
    assert {name: type(part) for name, part in moved.items()} == types
    assert moved["list"][1:] == ["word", 7, None] and moved["tuple"][1] is batch["tuple"][1]
    assert moved["sample"].name == "cat" and moved["default"]["new"] == [] and "new" not in batch["default"]


def test_objects_that_move_themselves_are_asked():
    class Own:
        def __init__(self, values: torch.Tensor) -> None:
            self.values = values

        def to(self, device: Any) -> "Own":
            return Own(self.values.to(device))

    moved = to_device([Own(torch.zeros(2))], "meta")
    assert [tensor.device.type for tensor in tensors_in(moved)] == ["meta"]


# --------------------------------------------------------------------------------------------------------- prefetch


def test_on_the_cpu_batches_come_as_they_are():
    batches = [nested(), torch.zeros(2), "word"]
    assert all(left is right for left, right in zip(prefetch(batches, "cpu"), batches, strict=True))
    assert list(prefetch([], "cpu")) == []


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
def test_on_cuda_batches_arrive_whole_and_in_order():
    data = torch.arange(4_000_000.0).view(4000, 1000)
    loader = make_loader(TensorDataset(data), 100, shuffle=True, device="cuda")
    expected = [batch.sum(dim=1) for (batch,) in loader]
    loader.set_epoch(0)
    sums = []
    for (batch,) in prefetch(loader, "cuda"):
        assert batch.is_cuda
        sums.append(batch.double().sum(dim=1))
        batch.zero_()  # its memory may be reused only after this
    got = torch.stack([total.cpu() for total in sums])
    assert torch.allclose(got, torch.stack(expected).double(), rtol=1e-5)
    assert list(prefetch([], "cuda")) == []


@needs_cuda
def test_on_cuda_a_batch_is_taken_ahead():
    taken = []

    def batches():
        for number in range(4):
            taken.append(number)
            yield {"x": torch.full((3,), number)}

    stream = prefetch(batches(), "cuda")
    assert next(stream)["x"].tolist() == [0, 0, 0] and taken == [0, 1]
    assert [batch["x"][0].item() for batch in stream] == [1, 2, 3]
