"""Probe sets, and what is known of each network without fine-tuning it."""

from dataclasses import replace

import numpy as np
import pytest

from data.data_error import DataError
from data.model_zoo import load_zoo
from data.zoo_descriptions import ZooDescriptions, load_descriptions, probe_sets, save_descriptions
from data.zoo_images import POOLS, VIEWS
from evaluation.ranking.describe_zoo import PROBE_SCORES, score_sets, zoo_networks


@pytest.fixture(scope="module")
def probes(image_domains):
    return probe_sets(image_domains)


@pytest.fixture
def described(tmp_path):
    """A small file of descriptions, and what is in it."""
    draw = np.random.default_rng(0)
    content = ZooDescriptions(
        models=("a", "b", "c"), probes=("digits-plain", "mnist-noisy"), tasks=("digits-1",), zoo_digest="0123",
        probe_scores={"log_me": draw.normal(size=(2, 3)), "nce": draw.normal(size=(2, 3))},
        task_scores={"log_me": draw.normal(size=(1, 3))},
    )  # fmt: skip
    path = tmp_path / "new" / "descriptions.npz"
    save_descriptions(content, path)
    return path, content


def test_there_is_a_probe_set_of_each_domain_and_view(probes, image_domains):
    assert [probe.name for probe in probes] == [f"{domain}-{view}" for domain in image_domains for view in VIEWS]
    for probe in probes:
        labels = probe.images.labels
        assert probe.images.images.shape == (len(labels), 12, 12)
        assert 3 <= labels.max() + 1 == len(probe.images.class_names) <= 6
        assert set(np.bincount(labels)) <= set(range(3, 11)), probe.name


def without_pool(domain, keep: str):
    """The domain with black images in all other pools."""
    images = np.where((domain.pools == POOLS.index(keep))[:, None, None], domain.images, 0)
    return replace(domain, images=images)


def test_probes_are_held_out_source_images_and_nothing_else(probes, image_domains):
    alone = probe_sets({name: without_pool(domain, "source_test") for name, domain in image_domains.items()})
    for probe, same in zip(probes, alone, strict=True):
        assert np.array_equal(probe.images.images, same.images.images), probe.name
    for probe in (probe for probe in probes if probe.name.endswith("-plain")):
        images, labels = image_domains[probe.domain].select("source_test")
        pool = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
        shown = {(i.tobytes(), int(c)) for i, c in zip(probe.images.images, probe.images.labels, strict=True)}
        assert shown <= pool
    other = probe_sets({"digits": without_pool(image_domains["digits"], "target_train")})
    assert not other[0].images.images.any(), "the test can fail"


def test_no_image_row_of_a_probe_is_a_row_of_a_task(benchmark):
    for task in benchmark:
        pools = set(task.source.pools[np.concatenate([task.train_rows, task.test_rows])])
        assert POOLS.index("source_test") not in pools, task.name


def test_saved_descriptions_are_read_back(described):
    path, content = described
    again = load_descriptions(path, ["a", "b", "c"])
    for part in ("models", "probes", "tasks", "zoo_digest"):
        assert getattr(again, part) == getattr(content, part)
    for kind in ("probe_scores", "task_scores"):
        found, wanted = getattr(again, kind), getattr(content, kind)
        assert list(found) == list(wanted)
        assert all(np.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def test_descriptions_of_other_models_are_refused(described):
    for models in (["a", "c", "b"], ["a", "b"]):
        with pytest.raises(DataError, match="describes other models than the zoo has. Restore it with `git checkout"):
            load_descriptions(described[0], models)


def test_missing_descriptions_are_named_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nowhere.npz.*python -m evaluation.describe_zoo"):
        load_descriptions(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("length", [0, 10, 300, 900])
def test_truncated_descriptions_are_refused(described, length):
    described[0].write_bytes(described[0].read_bytes()[:length])
    with pytest.raises(DataError, match="cannot read"):
        load_descriptions(described[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda arrays: arrays.pop("models"), "cannot read .*models"),
        (
            lambda arrays: arrays.update({"probe_scores/nce": np.zeros((2, 2))}),
            r"probe_scores/nce is \(2, 2\).*\(2, 3\)",
        ),
        (lambda arrays: arrays.update({"task_scores/log_me": np.zeros((2, 3))}), r"task_scores/log_me .*\(1, 3\)"),
        (lambda arrays: arrays["probe_scores/nce"].__setitem__((0, 0), np.nan), "needed are finite numbers"),
        (lambda arrays: arrays.update(models=np.array([{}], dtype=object)), "cannot read"),
    ],
)
def test_damaged_descriptions_are_refused(described, change, text):
    with np.load(described[0]) as archive:
        arrays = {key: archive[key] for key in archive.files}
    change(arrays)
    np.savez_compressed(described[0], **arrays)
    with pytest.raises(DataError, match=text):
        load_descriptions(described[0])


def test_committed_descriptions_are_those_of_the_committed_zoo(probes, benchmark):
    zoo = load_zoo()
    committed = load_descriptions(models=[entry.name for entry in zoo])
    assert committed.zoo_digest == zoo.digest
    assert committed.probes == tuple(probe.name for probe in probes)
    assert committed.tasks == tuple(task.name for task in benchmark)
    members = [number for number, entry in enumerate(zoo) if entry.family == "mlp"]
    networks = zoo_networks([zoo.entries[number] for number in members])
    for kind, chosen, sets, names in (
        ("probe_scores", [3, 50], [probe.images for probe in probes], PROBE_SCORES),
        ("task_scores", [0, 37], [task.train for task in benchmark], None),
    ):
        scores = score_sets(networks, [sets[number] for number in chosen], names)
        recorded = getattr(committed, kind)
        assert set(scores) == set(recorded)
        for name, values in scores.items():
            assert np.allclose(values, recorded[name][np.ix_(chosen, members)], rtol=1e-4, atol=1e-5), (kind, name)
