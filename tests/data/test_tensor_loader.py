import re
from dataclasses import dataclass

import pytest
import torch

import data.tensor_loader as module
from data.data_error import DataError
from data.network_weights import AugmentedLoader
from data.tensor_loader import TensorLoader

DRAWN = {"shuffled": {"shuffle": True}, "weighted": {"weights": torch.arange(103.0)}}
every_drawn_order = pytest.mark.parametrize("options", DRAWN.values(), ids=DRAWN)
every_order = pytest.mark.parametrize("options", [{}, *DRAWN.values()], ids=["as_it_is", *DRAWN])
WEIGHTS = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])


def rows(count: int = 103) -> dict[str, torch.Tensor]:
    return {"x": torch.arange(count * 3.0).view(count, 3), "y": torch.arange(count)}


def joined(loader: TensorLoader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    assert len(batches) == len(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(module.logger, "warning", lines.append)
    return lines


def leave(monkeypatch, free: int | None) -> list[str]:
    """Let devices have so many bytes left; returns a list of the devices that were asked about."""
    asked = []
    monkeypatch.setattr(module, "free_bytes", lambda device: asked.append(str(device)) or free)
    return asked


# ---------------------------------------------------------------------------------------------------------- order


def test_the_order_is_the_one_that_runs_so_far_were_made_with():
    order = torch.randperm(103, generator=torch.Generator().manual_seed(7 * 1_000_003 + 4))
    loader = TensorLoader(torch.arange(103), 10, shuffle=True, seed=7)
    loader.set_epoch(4)
    assert torch.equal(torch.cat(list(loader)), order)


@every_order
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("share", [1e-9, 0.5])
def test_an_epoch_comes_again_and_epochs_count_themselves(options, drop_last, share):
    loader = TensorLoader(rows(), 10, seed=3, drop_last=drop_last, memory_share=share, **options)
    passes = [joined(loader) for _ in range(3)]
    loader.set_epoch(1)
    torch.rand(7)
    assert same(joined(loader), passes[1])
    assert same(passes[1], passes[2]) == (not options)
    assert torch.equal(passes[2]["x"][:, 0], passes[2]["y"] * 3.0), "rows stay together"
    assert len(passes[0]["y"]) == (100 if drop_last else 103)


@every_drawn_order
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_copy_that_does_not_fit_gives_the_same_batches(options, drop_last, monkeypatch, warnings):
    loader = TensorLoader(rows(), 10, seed=3, drop_last=drop_last, **options)
    whole = [list(loader), list(loader)]
    asked = leave(monkeypatch, 103 * (12 + 8 + 8) * 2 - 1)  # x, y and the order; half of it may be taken
    each = TensorLoader(rows(), 10, seed=3, drop_last=drop_last, **options)
    for expected in whole:
        for left, right in zip(expected, each, strict=True):
            assert same(left, right)
    assert asked == ["cpu"] and not warnings and each.resident and each.epoch_rows() is None
    asked = leave(monkeypatch, 103 * (12 + 8 + 8) * 2)
    fits = TensorLoader(rows(), 10, seed=3, **options)
    assert fits.epoch_rows() is not None and fits.epoch_rows() is not None
    assert asked == ["cpu"], "asked once"


def test_many_small_batches_are_cut_in_parts(monkeypatch):
    monkeypatch.setattr(module, "_PART", 4)
    for share in (1e-9, 0.5):
        batches = list(TensorLoader(torch.arange(103), 5, shuffle=True, memory_share=share))
        assert [len(batch) for batch in batches] == [5] * 20 + [3]
        assert torch.equal(torch.cat(batches), torch.randperm(103, generator=torch.Generator().manual_seed(0)))


def test_no_rows_give_no_batches():
    for options in ({}, {"shuffle": True}, {"shuffle": True, "memory_share": 1e-9}):
        assert list(TensorLoader(torch.zeros(0, 3), 4, **options)) == []
        assert list(TensorLoader(rows(3), 4, drop_last=True, **options)) == []


# ----------------------------------------------------------------------------------------------------- whole epochs


@every_order
@pytest.mark.parametrize("drop_last", [False, True])
def test_epoch_rows_are_what_a_pass_is_cut_from_and_count_the_epoch(options, drop_last):
    passes, whole = (TensorLoader(rows(), 10, seed=3, drop_last=drop_last, **options) for _ in range(2))
    for _ in range(3):
        assert same(joined(passes), whole.epoch_rows())
    assert whole.epoch == 3


def test_epoch_rows_of_an_order_as_it_is_are_the_tensors_themselves():
    data = torch.arange(12.0)
    loader = TensorLoader(data, 5)
    assert loader.epoch_rows() is data
    assert loader.epoch_rows().data_ptr() == next(iter(loader)).data_ptr() == data.data_ptr(), "no copy"
    cut = TensorLoader(data, 5, drop_last=True).epoch_rows()
    assert cut.data_ptr() == data.data_ptr() and len(cut) == 10


def test_epoch_rows_that_need_too_much_memory_are_none_and_not_counted(monkeypatch):
    leave(monkeypatch, 100)
    loader = TensorLoader(rows(), 10, shuffle=True)
    assert loader.epoch_rows() is None and loader.epoch == 0
    assert TensorLoader(rows(), 10).epoch_rows() is not None, "needs no copy"
    leave(monkeypatch, None)
    assert TensorLoader(rows(), 10, shuffle=True).epoch_rows() is not None, "what can't be told is not refused"


def test_epoch_rows_of_tensors_that_are_made_anew():
    def make(generator):
        return {"x": torch.rand(23, generator=generator)}

    passes, whole = AugmentedLoader(make, 5, seed=2), AugmentedLoader(make, 5, seed=2)
    for _ in range(2):
        assert same(joined(passes), whole.epoch_rows())


# ---------------------------------------------------------------------------------------------------------- weights


def test_weights_are_the_frequencies_of_the_draws():
    count = 60_000
    weights = WEIGHTS.repeat(count // 6)
    drawn = torch.cat(list(TensorLoader(torch.arange(count), 1000, weights=weights, seed=5)))
    assert len(drawn) == count
    shares = torch.bincount(drawn % 6, minlength=6) / count
    assert torch.allclose(shares, WEIGHTS / 8, atol=0.01), shares
    assert (shares[WEIGHTS == 0] == 0).all()
    third = torch.cat([torch.bincount(part % 6, minlength=6)[None] for part in drawn.chunk(3)])
    assert torch.allclose(third / (count / 3), WEIGHTS / 8, atol=0.02), "in random order"


def test_weights_of_any_size_and_kind_draw_alike():
    expected = torch.cat(list(TensorLoader(torch.arange(6), 2, weights=WEIGHTS)))
    for weights in (WEIGHTS.tolist(), WEIGHTS.int(), WEIGHTS.double() * 2.0**1021, WEIGHTS.double() * 2.0**-1060):
        assert torch.equal(torch.cat(list(TensorLoader(torch.arange(6), 2, weights=weights))), expected)


def test_the_smallest_draw_passes_over_rows_of_weight_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, **options: torch.zeros(count, dtype=torch.float64))
    assert next(iter(TensorLoader(torch.arange(6), 6, weights=WEIGHTS))).tolist() == [1] * 6


def test_weights_reach_rows_beyond_the_limit_of_multinomial():
    count = 2**24 + 10
    weights = torch.zeros(count)
    weights[-3:] = 1
    loader = TensorLoader(torch.arange(count, dtype=torch.int32), 4096, weights=weights, drop_last=True)
    assert next(iter(loader)).unique().tolist() == [count - 3, count - 2, count - 1]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, 2.0], "TensorLoader: weights has shape (2,); it must be (6,), one a sample."),
        (torch.ones(6, 1), "TensorLoader: weights has shape (6, 1); it must be (6,), one a sample."),
        (
            [1.0, -0.5, 1, 1, float("nan"), 1],
            "TensorLoader: weights[1] is -0.5 (2 of 6 are bad); weights must be finite and not negative.",
        ),
        (
            [1.0, 1, 1, 1, 1, float("inf")],
            "TensorLoader: weights[5] is inf (1 of 6 are bad); weights must be finite and not negative.",
        ),
        ([0.0] * 6, "TensorLoader: no weight is above 0, so no sample could be drawn; at least one must be."),
    ],
)
def test_bad_weights_are_refused(weights, text):
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        TensorLoader(torch.zeros(6), 2, weights=weights)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("tensors", "options", "text"),
    [
        ({}, {}, "TensorLoader needs tensors of one length, one row a sample; given: none."),
        (
            torch.tensor(1.0),
            {},
            "TensorLoader needs tensors of one length, one row a sample; given: {'tensor': 'a scalar'}.",
        ),
        (torch.zeros(3), {"batch_size": 0}, "TensorLoader: batch_size is 0; it must be at least 1."),
        (torch.zeros(3), {"memory_share": 0}, "TensorLoader: memory_share is 0; it must be above 0 and at most 1."),
        (torch.zeros(3), {"memory_share": 1.5}, "TensorLoader: memory_share is 1.5; it must be above 0 and at most 1."),
    ],
)
def test_errors_say_what_is_wrong(tensors, options, text):
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        TensorLoader(tensors, **{"batch_size": 2, **options})


# ---------------------------------------------------------------------------------------------------------- devices


@every_order
def test_data_too_large_for_its_device_stays_and_says_so(options, monkeypatch, warnings):
    # `meta` stands for a small device: it has shapes and no values.
    leave(monkeypatch, 4000)
    loader = TensorLoader(rows(), 10, device="meta", **options)
    assert warnings == [
        "TensorLoader: the data takes 2.1 kB, more than memory_share = 0.5 of the 4.0 kB free on meta; it stays on cpu "
        "and each batch is moved when it is asked for, which is slower. Fewer samples, a smaller dtype or a larger "
        "memory_share would avoid it."
    ]
    assert not loader.resident and loader.epoch_rows() is None and loader.tensors["x"].device.type == "cpu"
    batches = list(loader)
    assert [batch["x"].shape[0] for batch in batches] == [10] * 10 + [3] and loader.epoch == 1
    assert {tensor.device.type for batch in batches for tensor in batch.values()} == {"meta"}
    assert loader.dataset[0]["x"].device.type == "meta"
    loader.to("meta")
    assert len(warnings) == 1, "once"
    cut = TensorLoader(rows(), 10, device="meta", drop_last=True, **options)
    assert [len(batch["x"]) for batch in cut] == [10] * 10
    assert loader.to("cpu").resident and joined(loader)["x"].shape == (103, 3)


def test_data_that_fits_moves_to_its_device(monkeypatch, warnings):
    asked = leave(monkeypatch, 4120)
    loader = TensorLoader(rows(), 10, device="meta")
    assert loader.resident and loader.tensors["x"].device.type == "meta" and not warnings
    assert TensorLoader(rows(), 10, device="cpu").resident and asked == ["meta"], "nothing to move, nothing to ask"
    leave(monkeypatch, 4000)
    assert TensorLoader(rows(), 10, device="meta", memory_share=0.6).resident


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@every_order
def test_all_forms_give_the_same_batches_on_cuda(options, monkeypatch, warnings):
    expected = joined(TensorLoader(rows(), 10, seed=3, **options))
    whole = TensorLoader(rows(), 10, seed=3, device="cuda", **options)
    each = TensorLoader(rows(), 10, seed=3, device="cuda", **options)
    leave(monkeypatch, 100)
    each._copy_is_affordable()
    moved = TensorLoader(rows(), 10, seed=3, device="cuda", **options)
    leave(monkeypatch, None)
    assert (whole.resident, each.resident, moved.resident) == (True, True, False) and len(warnings) == 1
    for loader in (whole, each, moved):
        got = joined(loader)
        assert {tensor.device.type for tensor in got.values()} == {"cuda"}
        assert same({name: tensor.cpu() for name, tensor in got.items()}, expected)


def test_tensor_loader_order_comes_from_seed_and_epoch_alone():
    data = torch.arange(10.0)
    loader = TensorLoader(data, 4, shuffle=True, seed=1)
    loader.set_epoch(3)
    first = torch.cat(list(loader))
    torch.rand(5)
    loader.set_epoch(3)
    assert torch.equal(torch.cat(list(loader)), first)
    assert not torch.equal(torch.cat(list(loader)), first), "the next epoch has another order"
    assert torch.equal(first.sort().values, data)


def test_tensor_loader_batches_like_a_data_loader():
    named = {"x": torch.arange(10), "y": torch.arange(10) * 2}
    loader = TensorLoader(named, 4, drop_last=True)
    assert [len(batch["x"]) for batch in loader] == [4, 4] and len(loader) == 2
    assert [len(batch["x"]) for batch in TensorLoader(named, 4)] == [4, 4, 2]
    shuffled = next(iter(TensorLoader(named, 10, shuffle=True)))
    assert torch.equal(shuffled["y"], shuffled["x"] * 2), "rows stay together"
    assert len(loader.dataset) == 10 and loader.dataset[3]["y"] == 6
    with pytest.raises(IndexError):
        loader.dataset[10]
    with pytest.raises(DataError, match="one length"):
        TensorLoader({"x": torch.zeros(2), "y": torch.zeros(3)}, 1)


# ----------------------------------------------------------------------------------------------------------- dataclass


@dataclass(kw_only=True)
class Pairs:
    left: torch.Tensor
    right: torch.Tensor


@pytest.mark.parametrize("share", [1e-9, 0.5])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_of_a_dataclass_are_those_of_a_dict_of_its_fields(shuffle, share):
    pairs = Pairs(left=torch.arange(10), right=torch.arange(20.0).view(10, 2))
    loader, plain = (
        TensorLoader(data, 4, shuffle=shuffle, seed=1, memory_share=share) for data in (pairs, vars(pairs))
    )
    assert len(loader) == 3
    for batch, wanted in zip(loader, plain, strict=True):
        assert type(batch) is Pairs
        assert torch.equal(batch.left, wanted["left"]) and torch.equal(batch.right, wanted["right"])
    sample = loader.dataset[3]
    assert type(sample) is Pairs and sample.left == 3 and sample.right.tolist() == [6, 7]
    both = loader.collate_fn([loader.dataset[3], loader.dataset[5]])
    assert type(both) is Pairs and both.left.tolist() == [3, 5] and both.right.tolist() == [[6, 7], [10, 11]]
    rows = loader.to("cpu").epoch_rows()
    assert rows is None or (type(rows) is Pairs and rows.right.shape == (10, 2))
    loader.shard_loader(1, 2)
    assert [type(batch) for batch in loader] == [Pairs] * 3


def test_a_dataclass_of_something_else_is_refused():
    with pytest.raises(DataError, match="needs tensors, one row a sample: right is of type list"):
        TensorLoader(Pairs(left=torch.arange(2), right=[1, 2]), 1)
