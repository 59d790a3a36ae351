"""The committed zoo, and what the reader says of a damaged one."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from constants import PERFORMANCE_PATH, ZOO_DIR
from data.data_error import DataError
from data.model_zoo import MANIFEST_NAME, WEIGHTS_NAME, load_zoo, save_zoo
from data.zoo_images import VIEWS, load_domains
from data.zoo_tasks import held_out_set, to_input
from model.zoo_families import FAMILIES


@pytest.fixture(scope="module")
def zoo():
    return load_zoo()


@pytest.fixture
def small(tmp_path, zoo) -> Path:
    """A zoo folder with two networks, for damaging."""
    save_zoo(tmp_path / "zoo", zoo.entries[1:3], zoo.domains)
    return tmp_path / "zoo"


def rewrite(folder: Path, change) -> None:
    manifest = yaml.safe_load((folder / MANIFEST_NAME).read_text())
    change(manifest)
    (folder / MANIFEST_NAME).write_text(yaml.safe_dump(manifest))


def test_committed_zoo_is_complete(zoo):
    assert len(zoo) == 96 == len({entry.name for entry in zoo})
    assert {entry.family for entry in zoo} == set(FAMILIES)
    assert {entry.view for entry in zoo} == set(VIEWS)
    assert {entry.domain for entry in zoo} == set(zoo.domains) and len(zoo.domains) >= 8
    assert sum(entry.undertrained for entry in zoo) == 16
    assert all(entry.checkpoint_epochs[-1] == entry.epochs for entry in zoo)
    # The zoo, its images and descriptions, and what was measured with it: together what a clone has to fetch.
    files = [*ZOO_DIR.iterdir(), PERFORMANCE_PATH]
    assert sum(path.stat().st_size for path in files) <= 10_000_000


def test_trained_networks_are_far_better_than_chance_and_than_undertrained_ones(zoo):
    for entry in zoo:
        if not entry.undertrained:
            assert entry.source_accuracy[-1] > 2 / len(entry.classes), entry.name
    means = [
        torch.tensor([entry.source_accuracy[-1] for entry in zoo if entry.undertrained == undertrained]).mean()
        for undertrained in (False, True)
    ]
    assert means[0] > 0.7 and means[0] > means[1] + 0.1


@pytest.mark.parametrize("number", range(0, 96, 8))
def test_recorded_accuracies_are_those_of_the_committed_weights(zoo, number):
    entry = zoo.entries[number]
    images, labels = held_out_set(entry.view, load_domains()[entry.domain], entry.class_indices)
    for checkpoint, recorded in enumerate(entry.source_accuracy):
        with torch.no_grad():
            logits = entry.load_model(checkpoint)(to_input(images))[:, : len(entry.classes)]
        # Two images of several hundred may lie so near a border that another machine rounds them across.
        assert (logits.argmax(dim=1) == labels).float().mean().item() == pytest.approx(recorded, abs=2.5 / len(labels))


def test_class_names_belong_to_class_indices(zoo):
    domains = load_domains()
    for entry in zoo:
        assert entry.classes == tuple(domains[entry.domain].class_names[index] for index in entry.class_indices)
        assert set(entry.class_indices) <= set(domains[entry.domain].source_classes)


def test_entry_gives_flat_vector_and_model_of_any_checkpoint(zoo):
    entry = zoo["mnist-plain-" + next(entry.family for entry in zoo if entry.name.startswith("mnist-plain"))]
    for checkpoint in (0, -1):
        network = entry.load_model(checkpoint)
        assert not network.training
        flat = torch.nn.utils.parameters_to_vector(network.parameters())
        assert flat.dtype == torch.float32 and torch.equal(flat, entry.vector(checkpoint))
    assert not torch.equal(entry.vector(0), entry.vector(-1))
    assert entry.vector().shape == (entry.parameters,)


def test_unknown_name_is_refused(zoo):
    with pytest.raises(DataError, match="has no network 'resnet50'"):
        zoo["resnet50"]


def test_saved_zoo_is_read_back(small, zoo):
    again = load_zoo(small)
    assert again.entries == zoo.entries[1:3] and again.domains == zoo.domains
    assert all(torch.equal(a.vectors, b.vectors) for a, b in zip(again, zoo.entries[1:3], strict=True))


def test_missing_files_are_named_with_what_to_do(tmp_path, small):
    with pytest.raises(DataError, match=r"cannot read the zoo's manifest .*git checkout data/zoo.*ModelZooTrainer"):
        load_zoo(tmp_path / "nowhere")
    (small / WEIGHTS_NAME).unlink()
    with pytest.raises(DataError, match=r"cannot read the zoo's weights .*weights.safetensors"):
        load_zoo(small)


@pytest.mark.parametrize("length", [0, 5, 200, 20_000])
def test_truncated_weights_are_refused(small, length):
    path = small / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="cannot read the zoo's weights"):
        load_zoo(small)


def test_weights_of_another_zoo_are_refused(small, zoo, tmp_path):
    save_zoo(tmp_path / "other", zoo.entries[3:5], zoo.domains)
    shutil.copy(tmp_path / "other" / WEIGHTS_NAME, small / WEIGHTS_NAME)
    with pytest.raises(DataError, match="they don't belong together"):
        load_zoo(small)


@pytest.mark.parametrize("text", ["", "- a list", "{", "\x00", "networks: 3", "!!python/object:os.system {}"])
def test_manifest_that_is_none_is_refused(small, text):
    (small / MANIFEST_NAME).write_text(text)
    with pytest.raises(DataError, match=r"zoo manifest|cannot read the zoo's manifest"):
        load_zoo(small)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda manifest: manifest.update(schema_version=9), "schema version 9, this program reads 1"),
        (lambda manifest: manifest["networks"][1].pop("domain"), r"network 2 lacks domain"),
        (lambda manifest: manifest["networks"].__setitem__(0, "mlp"), r"network 1 lacks its keys"),
        (lambda manifest: manifest["networks"][0].update(family="vit"), "no family 'vit'; allowed: cnn3"),
        (lambda manifest: manifest["networks"][0].update(family="mlp"), r"family mlp .* needs \(\d, 8048\)"),
        (lambda manifest: manifest["networks"][0].update(parameters=7), "listed with 7 parameters"),
        (lambda manifest: manifest["networks"][0].update(name="other"), "no tensor of that name"),
        (lambda manifest: manifest["networks"][0].update(source_accuracy=[0.5]), r"1 accuracies for \d checkpoints"),
        (lambda manifest: manifest["networks"].pop(), "networks that zoo.yaml does not list"),
        (lambda manifest: manifest["networks"].append(manifest["networks"][0]), "lists a network twice"),
    ],
)
def test_manifest_that_does_not_fit_the_weights_is_refused(small, change, text):
    rewrite(small, change)
    with pytest.raises(DataError, match=text):
        load_zoo(small)


def test_weights_that_are_not_finite_are_refused(small):
    weights = load_file(small / WEIGHTS_NAME)
    weights[next(iter(weights))][0, 0] = float("nan")
    save_file(weights, small / WEIGHTS_NAME)
    rewrite(small, lambda manifest: manifest["weights"].pop("sha256"))
    with pytest.raises(DataError, match="not finite"):
        load_zoo(small)
