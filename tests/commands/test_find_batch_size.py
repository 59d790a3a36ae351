"""`--find-batch-size`: the search as a function of a question, batches of any size, and the command line on a CPU."""

import re

import pytest
import torch
import torch.nn.functional as F
from step_trainers import HookTrainer, NormTrainer, SpellingTrainer, numbers, probed_run, snapshot
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from commands import find_batch_size
from commands.batch_size_search import LevelsOff, largest_fitting, smallest_near_best, with_margin
from commands.find_batch_size import Probe, batch_maker, resized, search
from data.batch_size import batch_size_of
from data.data_error import DataError
from train.base_trainer import BaseTrainer


@pytest.fixture(autouse=True)
def options_as_before():
    before = BaseTrainer.options
    yield
    BaseTrainer.options = before


# --------------------------------------------------------------------------------------------------------- the search


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, 100, 1000, 4095, 4096])
def test_the_largest_size_is_found_to_a_sixteenth(limit):
    asked = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= limit

    found = largest_fitting(fits, cap=1_000_000)
    assert limit * 16 / 17 - 1 <= found <= limit
    assert found in asked and len(asked) == len(set(asked)) <= 2 + 2 * limit.bit_length()


@pytest.mark.parametrize("limit", range(1, 40))
def test_with_no_slack_it_is_exact(limit):
    assert largest_fitting(lambda size: size <= limit, cap=64, resolution=0) == limit


def test_no_size_above_the_cap_is_asked_for():
    asked = []
    assert largest_fitting(lambda size: asked.append(size) or True, cap=100) == 100
    assert asked == [1, 2, 4, 8, 16, 32, 64, 100]


def test_where_nothing_fits_the_answer_is_0():
    assert largest_fitting(lambda size: False, cap=64) == 0
    assert largest_fitting(lambda size: size <= 3, cap=64, start=8, resolution=0) == 3


@pytest.mark.parametrize(("largest", "suggested"), [(1, 1), (10, 9), (17, 15), (40, 32), (1000, 896), (4096, 3680)])
def test_a_tenth_is_left_free(largest, suggested):
    assert with_margin(largest) == suggested <= largest


def test_levelling_off_is_two_doublings_that_bring_nothing():
    watch = LevelsOff()
    assert [watch.sees(rate) for rate in (10, 20, 20.5, 40, 41, 40)] == [False, False, False, False, False, True]


def test_the_smallest_size_near_the_best_is_suggested():
    assert smallest_near_best({1: 10.0, 2: 19.0, 4: 38.0, 8: 40.0, 16: 41.0, 32: 30.0}) == 4


# ---------------------------------------------------------------------------------------------- batches of any size


class Stream(IterableDataset):
    """Rows without length or index."""

    def __iter__(self):
        return iter([{"x": row, "y": row[:2]} for row in numbers(12, 4)])


@pytest.mark.parametrize("trainer_class", [HookTrainer, NormTrainer, SpellingTrainer])
def test_batches_are_made_of_the_loaders_samples(tmp_path, trainer_class):
    run = probed_run(trainer_class, tmp_path)
    make, real = batch_maker(run), next(iter(run.train_loader))
    for size in (1, 3, 700):
        batch = make(size)
        assert batch_size_of(batch) == size and batch.keys() == real.keys()
        assert all(batch[name].shape[1:] == real[name].shape[1:] for name in real)


def test_where_samples_have_no_index_rows_of_the_first_batch_are_repeated(tmp_path):
    run = probed_run(HookTrainer, tmp_path, train_loader=regression_stream(), attributes={}, epochs=1)
    batch = batch_maker(run)(9)
    assert torch.equal(batch["x"][:5], batch["x"][5:9].new_tensor(numbers(12, 4)[:5].tolist()))
    assert torch.equal(batch["x"][5:], batch["x"][:4])


def regression_stream() -> DataLoader:
    class Sized(DataLoader):
        def __len__(self):
            return 3

    return Sized(Stream(), batch_size=5)


def test_rows_of_all_kinds_are_repeated():
    batch = {
        "x": torch.arange(6).view(3, 2), "names": ["a", "b", "c"], "pair": (torch.zeros(3), "meta"), "batch_size": 3,
        "scale": torch.tensor(2.0), "table": torch.zeros(7, 2),
    }  # fmt: skip
    larger = resized(batch, 3, 5)
    assert larger["x"][:, 0].tolist() == [0, 2, 4, 0, 2]
    assert larger["names"] == ["a", "b", "c", "a", "b"] and larger["batch_size"] == 5
    assert len(larger["pair"][0]) == 5 and larger["pair"][1] == "meta"
    assert larger["scale"].dim() == 0 and larger["table"].shape == (7, 2)
    assert resized(batch, 3, 1)["names"] == ["a"]


# -------------------------------------------------------------------------------------------- the probe, and its errors


def limited(limit: int):
    """A loss function on a device that holds so many samples."""

    def hook(trainer, output, goal):
        if len(output) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return F.mse_loss(output, goal)

    return hook


def test_a_gpu_is_searched_to_its_end_and_the_trainer_is_as_it_was(tmp_path, monkeypatch):
    run = probed_run(HookTrainer, tmp_path, hook=limited(50))
    before, shown = snapshot(run.trainer), []
    probe = Probe(run, shown.append)
    lines = find_batch_size._search_memory(probe, cap=93)
    assert sorted(probe.measured) == [1, 2, 4, 8, 16, 32, 48, 50]
    assert [line for line in shown if "out of memory" in line] == [
        f"{size:>10}{'out of memory':>38}" for size in (64, 56, 52)
    ]
    assert lines[0].startswith("50 samples fit; most samples a second with ")
    assert lines[1].endswith("\nbatch_size = 40")
    after = snapshot(run.trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_where_not_one_sample_fits_it_says_so(tmp_path):
    run = probed_run(HookTrainer, tmp_path)
    run.trainer.hook = limited(0)  # what was built with two samples has less room by now
    probe = Probe(run, lambda line: None)
    (line,) = find_batch_size._search_memory(probe, cap=93)
    assert line.startswith("not even one sample fits")


def test_batches_that_do_not_grow_are_refused(tmp_path):
    probe = Probe(probed_run(HookTrainer, tmp_path), lambda line: None)
    probe._make = lambda size, make=probe._make: make(7)
    with pytest.raises(DataError, match="no tensor of its batches has a row for each sample: {x: tensor"):
        probe.fits(8)


def test_a_hook_that_needs_two_samples_is_no_error(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    run = probed_run(HookTrainer, tmp_path, model=model)
    lines = search(run, cap=4)
    assert lines[2].startswith("batch_size = ")


def test_another_error_is_told_with_the_size(tmp_path):
    def hook(trainer, output, goal):
        if len(output) > 8:
            raise ValueError("at most eight")
        return F.mse_loss(output, goal)

    with pytest.raises(DataError, match=r"a batch of 16 samples can't be trained with: .*ValueError: at most eight"):
        search(probed_run(HookTrainer, tmp_path, hook=hook))


def test_memory_that_ends_on_a_cpu_ends_the_search(tmp_path):
    lines = search(probed_run(HookTrainer, tmp_path, hook=limited(16)))
    assert lines[0] == "it ended there: 32 samples did not fit"


def test_accumulation_is_measured_with_two_batches(tmp_path):
    run = probed_run(SpellingTrainer, tmp_path)
    sizes, step = [], run.step.step
    run.step.step = lambda step_input: (sizes.append(len(step_input)), step(step_input))
    Probe(run, lambda line: None).fits(4)
    assert set(sizes) == {2}


def test_a_cpu_is_searched_for_throughput(tmp_path, capsys):
    assert find_batch_size.command(lambda: HookTrainer(tmp_path), True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "HookTrainer on cpu; a step is forward, backward, update (fastest of 5)"
    sizes = [int(line.split()[0]) for line in lines[2:] if re.search(r" [\d.]+ [MG]B$", line)]
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 93][: len(sizes)] and len(sizes) > 3
    assert int(lines[-2].removeprefix("batch_size = ")) in sizes
    assert re.fullmatch(
        r"an epoch has \d+ steps? with it, now 12; another batch size is another training: "
        r"find its learning rate \(--find-lr\)",
        lines[-1],
    )


@pytest.mark.slow
def test_the_command_on_a_cpu(shared_project):
    done = shared_project.run("OwnLoop", "--find-batch-size")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "OwnLoopTrainer on cpu; a step is forward, backward, update (fastest of 5)"
    assert lines[1].split() == ["batch", "size", "samples/s", "ms", "a", "step", "process", "peak"]
    sizes = [int(line.split()[0]) for line in lines[2:] if re.match(r" +\d+ +[\d,]+ +[\d.]+ +[\d.]+ [MG]B$", line)]
    assert sizes[:3] == [1, 2, 4] and sizes[-1] <= 70
    (suggested,) = [line for line in lines if line.startswith("batch_size = ")]
    assert int(suggested.split()[-1]) in sizes
    assert "steps with it, now 3; another batch size is another training: " in lines[-1]
    assert not (shared_project.path / "artifacts").exists() and done.stderr == ""


@pytest.mark.slow
def test_a_trainer_whose_batches_have_another_shape_is_refused_in_words(shared_project):
    done = shared_project.run("ModelZoo", "--find-batch-size")
    assert done.returncode == 3
    assert "batches can't be made of its samples: DataError: no tensor of its batches has a row" in done.stderr
