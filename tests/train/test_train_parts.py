"""The dense parts of train/: averages, early stopping, steps, schedules, plain states, checkpoints."""

import gc
import json
import math
import weakref

import pytest
import torch
from torch import nn

from data.batches import batch_size_of, describe
from data.data_error import DataError
from data.tensor_loader import TensorLoader
from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.errors import OutputError, ResumeError
from storage.files import write_atomically, write_json
from storage.plain_state import flatten, restore
from train.checkpointing.weights import plain_weights
from train.loop.early_stopping import EarlyStopping
from train.loop.meters import EpochMeter
from train.loop.progress import duration
from train.loop.record import RunRecord
from train.machine import release_memory
from train.schedulers import interval_of, warmup_cosine
from train.seeding import preserved_random_states, random_states, seed_everything, set_random_states
from train.steps import EagerStep, Update, Window, windows

# ------------------------------------------------------------------------------------------------------- batches


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


# -------------------------------------------------------------------------------------------------------- meters


def test_meter_averages_by_sample():
    meter = EpochMeter()
    meter.add("loss", torch.tensor(1.0), 32)
    meter.add("loss", torch.tensor(4.0), 4)
    meter.add("top1", 0.5, 32)
    meter.add("top1", torch.tensor([1.0, 0.0, 1.0, 1.0]), 4)
    assert meter.read() == {"loss": pytest.approx((32 + 16) / 36), "top1": pytest.approx((16 + 3) / 36)}


def test_meter_adds_many_small_losses_without_drift():
    meter = EpochMeter()
    for _ in range(20_000):
        meter.add("loss", torch.tensor(0.1), 64)
    assert meter.read()["loss"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


# ------------------------------------------------------------------------------------------------ early stopping


def test_early_stopping_counts_validations_in_a_row():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert [stopping.update(loss) for loss in (1.0, 0.95, 0.8, 0.75, 0.71)] == [False, False, False, False, True]
    assert stopping.best == 0.8
    resumed = EarlyStopping(patience=3, min_delta=0.1)
    resumed.load_state_dict(json.loads(json.dumps(stopping.state_dict())))
    assert (resumed.bad, resumed.exhausted) == (2, False)


def test_early_stopping_off_and_nan():
    assert not any(EarlyStopping(0, 0.0).update(1.0) for _ in range(100))
    stopping = EarlyStopping(1, 0.0)
    stopping.update(1.0)
    assert stopping.update(math.nan), "NaN is no improvement"


# --------------------------------------------------------------------------------------------------------- steps


def problem() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double(), torch.randn(22, 4).double()


def stepped(batches: list[torch.Tensor], clip: float = 0.0) -> torch.Tensor:
    model, _ = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sizes = iter([len(batch) for batch in batches])
    step = EagerStep(lambda batch: (model(batch) - batch).square().mean(), Update(optimizer, clip), lambda: next(sizes))
    step(Window(batches))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_accumulation_over_unequal_batches_equals_the_big_batch():
    _, data = problem()
    torch.testing.assert_close(stepped([data[:10], data[10:19], data[19:]]), stepped([data]), rtol=0, atol=1e-12)
    assert not torch.equal(stepped([data[:10]]), stepped([data]))


def test_clipping_bounds_the_step():
    model, data = problem()
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    free, clipped = (stepped([data], clip) - before for clip in (0.0, 1e-3))
    assert clipped.norm() == pytest.approx(0.5 * 1e-3, rel=1e-2)
    assert free.norm() > 10 * clipped.norm()
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm())


def test_windows_group_batches_and_keep_the_rest():
    assert [window.batches for window in windows(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [window.batches for window in windows(range(2), 1)] == [[0], [1]]


def test_warm_up_rises_then_falls_along_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warmup_cosine(optimizer, warmup_steps=4, total_steps=12, floor=0.1)
    assert interval_of(scheduler) == "step"
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates[12] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="warmup_steps = 5: must be from 0 to below total_steps = 5"):
        warmup_cosine(optimizer, 5, 5)


# -------------------------------------------------------------------------------------------------------- record


def test_record_takes_the_trainers_own_entries_before_its_own():
    record = RunRecord()
    meter = EpochMeter()
    meter.add("loss", 1.0, 1)
    record.measure("train", meter, 0.1)
    record.measure("val", meter, 0.1)
    record.history["train_loss"].append(7.0)
    record.flush()
    assert dict(record.history) == {"train_loss": [7.0], "learning_rate": [0.1], "val_loss": [1.0], "val_epoch": [1]}
    record.flush()
    assert record.history["val_epoch"] == [1], "nothing new, nothing entered"


def test_record_survives_a_checkpoint():
    record = RunRecord()
    record.history["train_loss"] += [1.0, torch.tensor(0.5)]
    record.note_best(0.25, 2)
    kept = record.history
    resumed = RunRecord()
    known = resumed.history
    resumed.load_state_dict(json.loads(json.dumps(record.frozen()())))
    assert resumed.history is known, "the trainer's self.history stays the record's"
    assert (resumed.history["train_loss"], resumed.progress.best_epoch) == ([1.0, 0.5], 2)
    assert kept["train_loss"][0] == 1.0


# -------------------------------------------------------------------------------------------------- plain states


def test_plain_state_brings_back_an_optimizer_exactly():
    model, data = problem()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    (model(data) - data).square().mean().backward()
    optimizer.step()
    tree, tensors = flatten(optimizer.state_dict())
    back = restore(json.loads(json.dumps(tree)), tensors)
    assert back["param_groups"] == optimizer.state_dict()["param_groups"], "tuples stay tuples"
    assert list(back["state"]) == [0, 1, 2, 3], "integer keys stay integers"
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back["state"][index][name], state[name]) for name in state)


def test_plain_state_says_where_something_else_is():
    with pytest.raises(TypeError, match=r"state\.a\.1 is a object"):
        flatten({"a": [1, object()]})


def test_random_states_are_plain_and_exact():
    import random

    import numpy as np

    seed_everything(3)
    random.random(), np.random.rand(), torch.rand(1)
    tree, tensors = flatten(random_states())
    drawn = (random.random(), np.random.rand(), torch.rand(2))
    set_random_states(restore(json.loads(json.dumps(tree)), tensors))
    again = (random.random(), np.random.rand(), torch.rand(2))
    assert drawn[:2] == again[:2] and torch.equal(drawn[2], again[2])
    with preserved_random_states():
        seed_everything(9)
    expected = torch.rand(1)
    set_random_states(restore(json.loads(json.dumps(tree)), tensors))
    torch.rand(2)
    assert torch.equal(torch.rand(1), expected)


# ----------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"w": torch.full((3,), value)}, {"epoch": value, "optimizer": {"m": torch.ones(2) * value}})


def test_store_keeps_the_newest_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for epoch in range(1, 7):
        store.save(epoch, checkpoint(epoch), best_epoch=min(epoch, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002", "epoch-00005", "epoch-00006"]
    newest, path = store.load_newest()
    assert path.name == "epoch-00006"
    assert torch.equal(newest.weights["w"], torch.full((3,), 6.0))
    assert torch.equal(newest.state["optimizer"]["m"], torch.full((2,), 6.0))


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_any_damage_is_noticed_and_the_older_one_is_used(tmp_path, name, damage):
    store = CheckpointStore(tmp_path, keep_last=2)
    store.save(1, checkpoint(1.0), 1)
    store.save(2, checkpoint(2.0), 1)
    path = tmp_path / "epoch-00002" / name
    content = path.read_bytes()
    flipped = bytes([content[0] ^ 0x40]) + content[1:]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": flipped, "cut": content[: len(content) // 2], "empty": b""}[damage])
    assert store.load_newest()[1].name == "epoch-00001"


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_a_beginning(tmp_path):
    store = CheckpointStore(tmp_path, 1)
    assert store.load_newest() is None
    (store.save(1, checkpoint(1.0), 1) / "state.json").unlink()
    with pytest.raises(ResumeError, match="no usable checkpoint in .* Start the run again without --resume"):
        store.load_newest()


def test_tied_weights_can_be_saved():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    weights = plain_weights(model)
    assert torch.equal(weights["0.weight"], weights["1.weight"])
    assert weights["0.weight"].data_ptr() != weights["1.weight"].data_ptr()


# ----------------------------------------------------------------------------------------------------------- files


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


def test_durations_are_readable():
    assert [duration(seconds) for seconds in (0.42, 12.3, 185, 7620)] == ["0.42 s", "12 s", "3m05s", "2h07m"]


# --------------------------------------------------------------------------------------------------- tensor loader


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


def test_a_finished_trainer_gives_its_memory_back_although_a_compiled_form_has_frozen_it():
    class Trainer:
        pass

    trainer = Trainer()
    trainer.itself, found = trainer, weakref.ref(trainer)
    gc.freeze()
    del trainer
    gc.collect()
    assert found() is not None
    release_memory()
    assert found() is None
