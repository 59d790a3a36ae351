"""Batches of lists: keys, shapes, masks, order, and the errors of who asks for what there is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.data_error import DataError
from data.ranking_world import make_fold
from data.similarity_lists import ListMaker, SimilarityLists, build_combined_similarity_loader


@pytest.fixture(scope="module")
def fold(world):
    return make_fold(world, "A", 0)


@pytest.fixture(scope="module")
def maker(world, fold):
    return ListMaker(world, fold)


@pytest.fixture(scope="module")
def training(maker):
    return build_combined_similarity_loader(("train",), maker, variants=4, per_epoch=3, batch_size=16, seed=1)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def test_batches_are_as_documented(training, world, fold, maker):
    tasks = len(fold.train_tasks) - len(fold.val_tasks)
    batches = epoch_of(training, 0)
    assert len(batches) == len(training) == -(-3 * tasks // 16)
    assert sum(batch["batch_size"] for batch in batches) == 3 * tasks
    pairs = len(maker.pair_names)
    for batch in batches:
        lists, models = batch["batch_size"], len(world.models)
        longest = batch["dataset_tokens"].shape[1]
        shapes = {
            "dataset_tokens": (lists, longest, 33), "dataset_mask": (lists, longest),
            "model_tokens": (lists, models, maker.model_tokens.shape[1]), "pair_features": (lists, models, pairs),
            "model_mask": (lists, models), "true_ranks": (lists, models), "truth": (lists, models),
            "accuracy": (lists, models), "model_indices": (lists, models),
        }  # fmt: skip
        others = {"model_names", "dataset_names", "dataset_splits", "batch_size"}
        assert batch.keys() == shapes.keys() | others
        for name, shape in shapes.items():
            wanted = torch.bool if "mask" in name else torch.int64 if name == "model_indices" else torch.float32
            assert batch[name].shape == shape and batch[name].dtype == wanted, name
            assert batch[name].isfinite().all(), name
        assert batch["model_names"] == list(world.models)
        assert batch["dataset_splits"] == ["train"] * lists and len(batch["dataset_names"]) == lists
    names = [name for batch in batches for name in batch["dataset_names"]]
    held = {world.tasks[task].name for task in fold.val_tasks + fold.test_tasks}
    assert len(set(names)) == tasks and not held & set(names)


def test_missing_classes_are_masked(training):
    padded = 0
    for batch in epoch_of(training, 0):
        mask = batch["dataset_mask"]
        assert mask.any(0).all(), "as long as the longest list and no longer"
        assert mask.sum(1).min() >= 2 and torch.equal(mask, mask.sort(dim=1, descending=True).values)
        assert not batch["dataset_tokens"][~mask].any() and (batch["dataset_tokens"][mask] != 0).any(-1).all()
        padded += int((~mask).sum())
    assert padded > 0


def test_training_lists_keep_some_of_the_models(training):
    kept = torch.cat([batch["model_mask"] for epoch in range(3) for batch in epoch_of(training, epoch)]).sum(1)
    assert kept.min() >= 2 and kept.max() <= 96 and kept.float().std() > 5
    assert 0.6 < kept.float().mean() / 96 < 0.9


def test_at_least_two_models_stay_in_a_list_of_two(world, fold, maker):
    lists = SimilarityLists(maker, fold.train_tasks[:2], [4, 9], ["train"] * 2, variants=1, per_epoch=8)
    (batch,) = lists
    assert batch["model_mask"].all() and batch["model_mask"].shape == (16, 2)


def test_truth_and_ranks_are_those_of_the_table(maker, world, fold):
    (batch, *_) = build_combined_similarity_loader(("val",), maker)
    for row, task in enumerate(fold.val_tasks[: batch["batch_size"]]):
        assert batch["dataset_names"][row] == world.tasks[task].name
        assert np.allclose(batch["accuracy"][row], world.truth[task], atol=1e-6)
        assert batch["truth"][row].mean().abs() < 1e-5 and batch["truth"][row].std(correction=0) - 1 < 1e-5
        assert world.truth[task].argmax() in np.flatnonzero(batch["true_ranks"][row] == batch["true_ranks"][row].min())
        assert batch["true_ranks"][row].sum() == 96 * 97 / 2
    assert batch["model_mask"].all(), "only training lists lose models"


def test_equal_models_share_a_rank(world, fold):
    truth = world.truth.copy()
    truth[fold.test_tasks[0], :5] = [0.4, 0.9, 0.7, 0.9, 0.9]
    lists = SimilarityLists(ListMaker(replace(world, truth=truth), fold), fold.test_tasks[:1], range(5), ["test"])
    assert lists.dataset[0]["true_ranks"].tolist() == [5.0, 2.0, 4.0, 2.0, 2.0]


def same(first, second):
    return all(
        torch.equal(a[name], b[name])
        for a, b in zip(first, second, strict=True)
        for name in ("dataset_mask", "model_mask", "pair_features", "accuracy")
        if a[name].shape == b[name].shape or pytest.fail("another shape")
    )


def test_lists_follow_from_seed_and_epoch(maker, training):
    first = epoch_of(training, 5)
    again = build_combined_similarity_loader(("train",), maker, variants=4, per_epoch=3, batch_size=16, seed=1)
    assert same(first, epoch_of(again, 5)) and same(first, epoch_of(training, 5))
    masks = [batch["model_mask"] for batch in first]
    other_epoch = [batch["model_mask"] for batch in epoch_of(training, 6)]
    assert not any(torch.equal(a, b) for a, b in zip(masks, other_epoch, strict=True))
    other_seed = build_combined_similarity_loader(("train",), maker, variants=4, per_epoch=3, batch_size=16, seed=2)
    assert not torch.equal(masks[0], epoch_of(other_seed, 5)[0]["model_mask"])


def test_passes_go_on_with_the_next_epoch_by_themselves(training):
    training.set_epoch(2)
    passes = [[batch["dataset_names"] for batch in training] for _ in range(2)]
    assert passes[0] == [batch["dataset_names"] for batch in epoch_of(training, 2)]
    assert passes[1] == [batch["dataset_names"] for batch in epoch_of(training, 3)] != passes[0]


def test_whole_tasks_come_in_their_order_where_nothing_is_sub_sampled(maker, world, fold):
    for split, tasks in (("val", fold.val_tasks), ("test", fold.test_tasks)):
        loader = build_combined_similarity_loader((split,), maker, batch_size=4)
        batches = list(loader)
        assert len(batches) == len(loader) == -(-len(tasks) // 4)
        names = [name for batch in batches for name in batch["dataset_names"]]
        assert names == [world.tasks[task].name for task in tasks] == [item["dataset_name"] for item in loader.dataset]
        classes = torch.cat([batch["dataset_mask"].sum(1) for batch in batches]).tolist()
        assert classes == [len(world.tasks[task].classes) for task in tasks]


def test_several_splits_can_be_asked_for_together(maker, fold):
    loader = build_combined_similarity_loader(("val", "test"), maker)
    splits = [split for batch in loader for split in batch["dataset_splits"]]
    assert splits == ["val"] * len(fold.val_tasks) + ["test"] * len(fold.test_tasks)


@pytest.mark.parametrize("splits", [("test",), ["test"]])
def test_lists_of_a_test_hold_the_models_of_the_test(world, splits):
    cold = make_fold(world, "D", 1)
    batch = next(iter(build_combined_similarity_loader(splits, ListMaker(world, cold))))
    assert batch["model_indices"][0].tolist() == list(cold.test_models)
    assert batch["model_names"] == [world.models[model] for model in cold.test_models]


def test_unknown_split_is_refused(maker):
    with pytest.raises(DataError, match="there is no split 'training'; allowed: train, val, test"):
        build_combined_similarity_loader(("training",), maker)


def test_splits_of_different_models_are_refused_together(world):
    with pytest.raises(DataError, match="tests other models than it trains on; ask for its test lists alone"):
        build_combined_similarity_loader(("val", "test"), ListMaker(world, make_fold(world, "D", 0)))


def test_split_without_tasks_is_refused(world):
    for splits in (("test",), ()):
        with pytest.raises(DataError, match="there is no task to make lists of"):
            build_combined_similarity_loader(splits, ListMaker(world, make_fold(world, "all", 0)))


def test_without_a_maker_it_takes_the_shipped_zoo(maker, fold):
    batch = next(iter(build_combined_similarity_loader(("val",))))
    expected = next(iter(build_combined_similarity_loader(("val",), maker)))
    assert batch["dataset_names"] == expected["dataset_names"]
    assert torch.equal(batch["pair_features"], expected["pair_features"])


def test_shuffled_truth_is_that_of_training_tasks_and_models_alone(world):
    for split in ("A", "D"):
        fold = make_fold(world, split, 0)
        shuffled = ListMaker(world, fold, shuffle_truth=True, seed=3).world.truth
        known, tested = list(fold.train_models), list(fold.test_tasks)
        assert np.array_equal(shuffled[tested], world.truth[tested])
        for task in fold.train_tasks:
            assert np.array_equal(np.sort(shuffled[task, known]), np.sort(world.truth[task, known]))
            assert abs(np.corrcoef(shuffled[task, known], world.truth[task, known])[0, 1]) < 0.5
            others = [model for model in range(len(world.models)) if model not in fold.train_models]
            assert np.array_equal(shuffled[task, others], world.truth[task, others])
        assert not np.array_equal(shuffled, ListMaker(world, fold, shuffle_truth=True, seed=4).world.truth)
    assert np.array_equal(world.truth, world.seeds.mean(2)), "the world itself is as before"


def test_hybrid_adds_what_was_measured_on_the_dataset_itself(world, fold, maker):
    hybrid = ListMaker(world, fold, hybrid=True)
    assert hybrid.pair_names == [*maker.pair_names, "measured log_me", "measured nearest_centroid"]
    item = build_combined_similarity_loader(("test",), hybrid).dataset[0]
    alone = build_combined_similarity_loader(("test",), maker).dataset[0]
    assert torch.equal(item["pair_features"][:, :-2], alone["pair_features"])
    for column, name in ((-2, "log_me"), (-1, "nearest_centroid")):
        scores = world.task_scores[name][fold.test_tasks[0]]
        assert np.corrcoef(item["pair_features"][:, column], scores)[0, 1] == pytest.approx(1, abs=1e-5)


def test_codes_widen_the_model_tokens(world, fold, maker):
    codes = torch.randn(len(world.models), 30, generator=torch.Generator().manual_seed(0))
    tokens = ListMaker(world, fold, codes=codes).model_tokens
    assert tokens.shape == (96, maker.model_tokens.shape[1] + 8)
    assert torch.equal(tokens[:, :-8], maker.model_tokens)
    assert tokens[:, -8:].std(0) == pytest.approx([1] * 8, abs=0.02)


def test_an_unseen_family_has_no_column_of_its_own(world, maker):
    unseen = ListMaker(world, make_fold(world, "E", 0)).model_tokens
    families = len(set(world.families))
    assert unseen.shape[1] == maker.model_tokens.shape[1] - families
    assert maker.model_tokens[:, -families:].sum(1).eq(1).all()


def test_a_dataset_token_tells_centre_spread_and_size_of_a_class(world, maker, fold):
    task = fold.test_tasks[0]
    images = world.encoded[task]
    tokens = maker.dataset_tokens(images)
    assert tokens.shape == (len(world.tasks[task].classes), 33)
    assert tokens[:, -1] == pytest.approx(np.log(world.tasks[task].shots / 10), abs=1e-6)
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(0))
    shuffled = replace(images, features=images.features[order], labels=images.labels[order])
    assert torch.allclose(maker.dataset_tokens(shuffled), tokens, atol=1e-4), "the order of images does not matter"
    shifted = replace(images, features=images.features + images.labels[:, None] * 0.5)
    moved = (maker.dataset_tokens(shifted) - tokens).abs()
    assert moved[0].max() < 1e-4 and moved[1, :16].max() > 0.1 and moved[1:, 16:].max() < 1e-3
