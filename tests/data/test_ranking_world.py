"""Who may see what: folds of the protocol, and files that must fit each other."""

import json

import numpy as np
import pytest
import torch

from constants import PERFORMANCE_PATH
from data.data_error import DataError
from data.image_encoder import GradientEncoder
from data.ranking_world import FOLDS, SPLITS, by_row, load_world, make_fold, other_tasks, visible_probes

ALL = [(split, number) for split in SPLITS for number in range(FOLDS[split])]


def folds(world, split):
    return [make_fold(world, split, number) for number in range(FOLDS[split])]


def domains(world, tasks):
    return {world.tasks[task].domain for task in tasks}


def test_world_is_what_the_files_say(world):
    count, models = len(world.tasks), len(world.models)
    assert models == 96 and world.truth.shape == (count, models) == world.seeds.shape[:2]
    assert np.allclose(world.truth, world.seeds.mean(2)) and world.tolerance.shape == (count,)
    assert {len(part) for part in (world.families, world.parameters, world.source_accuracy)} == {models}
    for task, encoded in zip(world.tasks, world.encoded, strict=True):
        assert len(encoded.features) == len(encoded.labels) == task.shots * len(task.classes)
        assert np.allclose(encoded.mean, encoded.features.numpy().mean(0), atol=1e-5)
    assert len(world.probes) == len(world.probe_domains) == len(next(iter(world.probe_scores.values())))
    assert all(scores.shape == (count, models) for scores in world.task_scores.values())


@pytest.mark.parametrize(("split", "number"), ALL)
def test_a_fold_shares_nothing_that_is_new_in_its_test(world, split, number):
    fold = make_fold(world, split, number)
    assert set(fold.val_tasks) < set(fold.train_tasks) and fold.val_tasks
    assert all(world.tasks[task].split == "train" for task in fold.train_tasks)
    if split == "C":
        assert fold.test_tasks == fold.train_tasks and not fold.hide_task
    else:
        assert not set(fold.train_tasks) & set(fold.test_tasks) and fold.hide_task
        assert all(world.tasks[task].split == "test" for task in fold.test_tasks)
    everyone = set(range(len(world.models)))
    if split in "AB":
        assert set(fold.train_models) == set(fold.test_models) == everyone and not fold.cold
    else:
        assert not set(fold.train_models) & set(fold.test_models) and fold.cold
        assert set(fold.train_models) | set(fold.test_models) == everyone
    families = [{world.families[model] for model in models} for models in (fold.train_models, fold.test_models)]
    assert (families[0] & families[1] == set()) == (split == "E")
    unseen = {world.probe_domains[index] for index in set(range(len(world.probes))) - set(fold.probes)}
    if split == "B":
        assert not domains(world, fold.train_tasks) & domains(world, fold.test_tasks)
        assert domains(world, fold.test_tasks) <= unseen and not unseen & domains(world, fold.train_tasks)
        assert not unseen & {world.probe_domains[index] for index in fold.probes}
    else:
        assert unseen == set()


def test_split_a_uses_every_task(world):
    (fold,) = folds(world, "A")
    assert sorted(fold.train_tasks + fold.test_tasks) == list(range(len(world.tasks)))


def test_folds_of_b_leave_every_domain_out_once(world):
    left_out = []
    for fold in folds(world, "B"):
        left_out += sorted(set(world.probe_domains) - {world.probe_domains[index] for index in fold.probes})
    assert sorted(left_out) == sorted(domains(world, range(len(world.tasks))))
    tested = [task for fold in folds(world, "B") for task in fold.test_tasks]
    assert sorted(tested) == [task for task in range(len(world.tasks)) if world.tasks[task].split == "test"]


@pytest.mark.parametrize("split", ["C", "D", "E"])
def test_folds_leave_every_model_out_once(world, split):
    tested = [model for fold in folds(world, split) for model in fold.test_models]
    assert sorted(tested) == list(range(len(world.models)))
    if split == "E":
        own = [{world.families[model] for model in fold.test_models} for fold in folds(world, split)]
        assert all(len(families) == 1 for families in own) and set.union(*own) == set(world.families)
    else:
        for fold in folds(world, split):
            assert {world.families[model] for model in fold.test_models} == set(world.families), "some of each family"


@pytest.mark.parametrize("split", ["all", "foreign"])
def test_rankers_for_use_train_on_everything(world, split):
    fold = make_fold(world, split, 0)
    assert fold.train_tasks == tuple(range(len(world.tasks))) and fold.test_tasks == ()
    assert fold.train_models == tuple(range(len(world.models)))
    assert fold.cold == (split == "foreign")


def test_a_list_hides_its_task_and_where_domains_are_new_its_domain(world):
    for split in SPLITS:
        fold = make_fold(world, split, 0)
        task = fold.train_tasks[0]
        domain, others = world.tasks[task].domain, other_tasks(world, fold, task)
        assert (task in others) == (split == "C")
        assert set(others) <= set(fold.train_tasks)
        if split == "B":
            assert domain not in domains(world, others)
            assert {world.probe_domains[index] for index in visible_probes(world, fold, domain)} == {
                world.probe_domains[index] for index in fold.probes
            } - {domain}
        else:
            assert set(others) | {task} == set(fold.train_tasks)
            assert tuple(visible_probes(world, fold, domain)) == fold.probes


def test_validation_tasks_are_a_fifth_that_can_be_chosen(world):
    parts = [make_fold(world, "A", 0, part).val_tasks for part in range(5)]
    assert sorted(task for part in parts for task in part) == list(make_fold(world, "A", 0).train_tasks)
    assert parts[2] == make_fold(world, "A", 0).val_tasks


@pytest.mark.parametrize(("split", "number"), [("F", 0), ("A", 1), ("B", 4), ("B", -1), ("E", 5), ("all", 1)])
def test_unknown_fold_is_refused_with_those_there_are(world, split, number):
    allowed = r"allowed: A \(0 to 0\), B \(0 to 3\), C \(0 to 3\), D \(0 to 3\), E \(0 to 4\), all \(0 to 0\)"
    with pytest.raises(DataError, match=f"there is no fold {number} of split '{split}'; {allowed}"):
        make_fold(world, split, number)


def test_standardised_rows_have_mean_zero_and_spread_one():
    values = by_row(np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]))
    assert values[0].mean() == pytest.approx(0) and values[0].std() == pytest.approx(1)
    assert values[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content["models"].reverse(), "measured with other networks than those of the zoo in"),
        (lambda content: content["about"].update(zoo_digest="0" * 64), "other networks .*GroundTruthTrainer publish"),
        (lambda content: content["tasks"].update({"moon-1": kept_row(content)}), r"does not have: \['moon-1'\]"),
    ],
)
def test_table_of_another_zoo_or_benchmark_is_refused(tmp_path, change, text):
    content = json.loads(PERFORMANCE_PATH.read_text())
    change(content)
    (tmp_path / "table.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=text):
        load_world(GradientEncoder(), performance=tmp_path / "table.json")


def kept_row(content: dict) -> dict:
    return next(row for row in content["tasks"].values() if "dropped" not in row)


def test_probe_places_differ_between_domains(world):
    means = torch.stack([torch.from_numpy(probe.mean) for probe in world.probes])
    assert torch.cdist(means, means).fill_diagonal_(1).min() > 1e-3
