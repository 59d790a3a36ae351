"""The dense parts of train/: averages, early stopping, steps, schedules, random states, weights."""

import gc
import json
import math
import weakref

import pytest
import torch
from torch import nn

from constants.time_spans import duration
from storage.plain_state import flatten, restore
from train.loop.early_stopping import EarlyStopping
from train.loop.meters import EpochMeter
from train.loop.record import RunRecord
from train.machine import release_memory
from train.schedulers import interval_of, warmup_cosine
from train.seeding import preserved_random_states, random_states, seed_everything, set_random_states
from train.steps import EagerStep, StepInput, Update, group_microbatches
from train.weights import plain_weights

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
    step(StepInput(batches))
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


def test_step_inputs_group_batches_and_keep_the_rest():
    assert [step_input.microbatches for step_input in group_microbatches(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [step_input.microbatches for step_input in group_microbatches(range(2), 1)] == [[0], [1]]


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


# ------------------------------------------------------------------------------------------------- random states


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


# --------------------------------------------------------------------------------------------------------- weights


def test_tied_weights_can_be_saved():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    weights = plain_weights(model)
    assert torch.equal(weights["0.weight"], weights["1.weight"])
    assert weights["0.weight"].data_ptr() != weights["1.weight"].data_ptr()


def test_durations_are_readable():
    assert [duration(seconds) for seconds in (0.0042, 0.42, 12.3, 185, 7620)] == [
        "4.2 ms", "0.42 s", "12 s", "3m05s", "2h07m"
    ]  # fmt: skip


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
