"""What a list's inputs may depend on. Each test changes what must stay hidden and looks for a trace of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.ranking_evidence import Evidence
from data.ranking_world import FOLDS, SPLITS, EncodedImages, make_fold
from data.similarity_lists import ListMaker, build_combined_similarity_loader

ALL = [(split, FOLDS[split] - 1) for split in SPLITS]  # one fold of each: all are made alike
INPUTS = ("dataset_tokens", "model_tokens", "pair_features")


@pytest.fixture(scope="module")
def world(world):
    """The committed benchmark with one image feature in eight: what may be seen does not hang on how many there are."""

    def thin(sets):
        return tuple(EncodedImages(images.features[:, ::8], images.labels) for images in sets)

    return replace(world, encoded=thin(world.encoded), probes=thin(world.probes))


def altered(world, tasks, models=None):
    """The world with other accuracies of some tasks and models."""
    draw = np.random.default_rng(0)
    rows = np.ix_(list(tasks), range(len(world.models)) if models is None else list(models))
    truth, seeds = world.truth.copy(), world.seeds.copy()
    truth[rows] = draw.uniform(0, 1, truth[rows].shape)
    seeds[rows] = draw.uniform(0, 1, seeds[rows].shape)
    return replace(world, truth=truth, seeds=seeds)


def with_images(world, tasks=(), probes=()):
    """The world with other images of some tasks and probe sets, and all that was measured on them."""
    generator = torch.Generator().manual_seed(0)

    def other(images: EncodedImages) -> EncodedImages:
        return EncodedImages(torch.rand(images.features.shape, generator=generator), images.labels)

    scores = {}
    for kind, chosen in (("task_scores", tasks), ("probe_scores", probes)):
        scores[kind] = {name: values.copy() for name, values in getattr(world, kind).items()}
        for values in scores[kind].values():
            values[list(chosen)] = np.random.default_rng(1).normal(size=(len(chosen), values.shape[1]))
    encoded = tuple(other(images) if index in tasks else images for index, images in enumerate(world.encoded))
    probe_images = tuple(other(images) if index in probes else images for index, images in enumerate(world.probes))
    return replace(world, encoded=encoded, probes=probe_images, **scores)


def inputs(world, fold, parts=("train", "val", "test")):
    """All that a ranker reads in some parts of a fold; in split A sub-sampled training lists too."""
    maker = ListMaker(world, fold, hybrid=True)
    found = {"all model tokens": maker.model_tokens}
    for part in parts:
        lists = build_combined_similarity_loader(
            (part,), maker, variants=int(part == "train" and fold.unseen == "task")
        )
        for forms in lists._lists:
            for number, item in enumerate(forms):
                for name in INPUTS:
                    found[f"{part} {item['dataset_name']} {number} {name}"] = item[name]
    return found


def assert_same(first, second):
    assert first.keys() == second.keys() and len(first) > 10
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def untouched(world):
    """Inputs of a fold in the world as it is, computed once."""
    cache = {}

    def get(fold):
        if fold not in cache:
            cache[fold] = inputs(world, fold)
        return cache[fold]

    return get


@pytest.mark.parametrize(("split", "number"), [pair for pair in ALL if pair[0] != "C"])
def test_accuracies_of_test_tasks_reach_no_input(world, untouched, split, number):
    fold = make_fold(world, split, number)
    assert_same(untouched(fold), inputs(altered(world, fold.test_tasks), fold))


@pytest.mark.parametrize(("split", "number"), [pair for pair in ALL if pair[0] in "CDE"])
def test_accuracies_of_models_that_are_ranked_reach_no_input(world, untouched, split, number):
    fold = make_fold(world, split, number)
    assert_same(untouched(fold), inputs(altered(world, range(len(world.tasks)), fold.test_models), fold))


@pytest.mark.parametrize("split", ["A", "B", "D", "E"])
def test_accuracies_of_a_list_s_own_task_reach_none_of_its_inputs(world, split):
    fold = make_fold(world, split, 0)
    base, moved = Evidence(world, fold), 0
    for task in fold.train_tasks[::4]:
        domain, other = world.tasks[task].domain, Evidence(altered(world, [task]), fold)
        arguments = (world.encoded[task], task, domain)
        assert np.array_equal(base.pair_features(*arguments), other.pair_features(*arguments)), world.tasks[task].name
        neighbour = next(index for index in fold.train_tasks if world.tasks[index].domain != domain)
        arguments = (world.encoded[neighbour], neighbour, world.tasks[neighbour].domain)
        moved += not np.allclose(base.pair_features(*arguments), other.pair_features(*arguments), atol=1e-3)
    assert moved == len(fold.train_tasks[::4]), "a training task's accuracies are what other lists learn from"


def test_in_split_b_accuracies_of_a_list_s_own_domain_reach_none_of_its_inputs(world):
    for number in range(FOLDS["B"]):
        fold = make_fold(world, "B", number)
        base = Evidence(world, fold)
        for domain in list(dict.fromkeys(world.tasks[task].domain for task in fold.train_tasks))[::3]:
            own = [index for index, task in enumerate(world.tasks) if task.domain == domain]
            other = Evidence(altered(world, own), fold)
            for task in own:
                arguments = (world.encoded[task], task, domain)
                assert np.array_equal(base.pair_features(*arguments), other.pair_features(*arguments)), domain


@pytest.mark.parametrize("number", [0, FOLDS["B"] - 1])
def test_in_split_b_probes_of_a_left_out_domain_reach_no_input(world, untouched, number):
    fold = make_fold(world, "B", number)
    hidden = sorted(set(range(len(world.probes))) - set(fold.probes))
    assert hidden
    assert_same(untouched(fold), inputs(with_images(world, probes=hidden), fold))


@pytest.mark.parametrize(("split", "number"), [("A", 0), ("B", 1)])
def test_images_of_test_tasks_reach_no_training_or_validation_list(world, split, number):
    fold = make_fold(world, split, number)
    parts = ("train", "val")
    assert_same(inputs(world, fold, parts), inputs(with_images(world, tasks=fold.test_tasks), fold, parts))


def test_images_that_may_be_seen_are_seen(world, untouched):
    """So that the tests above can fail."""
    fold = make_fold(world, "B", 0)
    for other in (with_images(world, probes=fold.probes[:6]), with_images(world, tasks=fold.train_tasks[:2])):
        found = inputs(other, fold)
        assert any(not torch.equal(found[name], value) for name, value in untouched(fold).items() if "test" in name)


@pytest.mark.parametrize(("split", "number"), ALL)
def test_accuracies_of_training_tasks_reach_the_test_lists(world, untouched, split, number):
    fold = make_fold(world, split, number)
    found = inputs(altered(world, fold.train_tasks, fold.train_models), fold, ("test",))
    names = [name for name in found if name.startswith("test") and name.endswith("pair_features")]
    assert len(names) == len(fold.test_tasks)
    assert all(not torch.allclose(found[name], untouched(fold)[name], atol=1e-3) for name in names)


def test_columns_are_named_standardised_and_finite(world):
    for split in SPLITS:
        fold = make_fold(world, split, 0)
        evidence = Evidence(world, fold)
        for task in fold.train_tasks[:2] + fold.test_tasks[:2]:
            features = evidence.pair_features(world.encoded[task], task, world.tasks[task].domain)
            assert features.shape == (len(world.models), len(evidence.names))
            known = features[list(fold.train_models)]  # the others have no part in what is standard
            assert np.allclose(known.mean(0), 0, atol=1e-9) and np.allclose(known.std(0), 1)
        assert ("own mean" in evidence.names) == (split in "AB"), "a model that was never measured has no own results"


@pytest.mark.parametrize("split", ["C", "D", "E"])
def test_unseen_models_have_no_part_in_what_training_models_look_like(world, split):
    """Not even what needs no measuring: their probe scores change neither tokens nor features of the others."""
    fold = make_fold(world, split, 1)
    known, hidden = list(fold.train_models), list(fold.test_models)
    scores = {name: values.copy() for name, values in world.probe_scores.items()}
    for values in scores.values():
        values[:, hidden] = 3 * values[:, hidden] + 1
    other = replace(world, probe_scores=scores)
    task = fold.train_tasks[0]
    first, second = (
        (ListMaker(own, fold).model_tokens.numpy(), Evidence(own, fold).pair_features(own.encoded[task], task))
        for own in (world, other)
    )
    for before, after in zip(first, second, strict=True):
        assert np.allclose(before[known], after[known], atol=1e-5)
        assert not np.allclose(before[hidden], after[hidden], atol=1e-2)


def test_own_mean_is_the_mean_over_the_other_training_tasks(world):
    fold = make_fold(world, "A", 0)
    evidence, task = Evidence(world, fold), fold.train_tasks[3]
    others = np.array([world.truth[index] for index in fold.train_tasks if index != task])
    others = (others - others.mean(1, keepdims=True)) / others.std(1, keepdims=True)
    expected = others.mean(0)
    column = evidence.pair_features(world.encoded[task], task)[:, evidence.names.index("own mean")]
    assert np.allclose(column, (expected - expected.mean()) / expected.std())


def test_a_known_task_is_its_own_nearest_neighbour(world):
    fold = make_fold(world, "A", 0)
    evidence = Evidence(world, fold)
    for task in fold.train_tasks[::5]:
        (name, distance), *rest = evidence.neighbours(world.encoded[task])
        assert name == world.tasks[task].name and distance == pytest.approx(0, abs=1e-6)
        assert len(rest) == 2 and rest[0][1] <= rest[1][1]
    names = {world.tasks[task].name for task in fold.train_tasks}
    assert {name for name, _ in evidence.neighbours(world.encoded[fold.test_tasks[0]], 5)} <= names
