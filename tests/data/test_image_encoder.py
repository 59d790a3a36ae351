"""Fixed encoders of images, shipped ones and a user's own."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from config import ConfigError
from data.data_error import DataError
from data.image_encoder import ClipEncoder, GradientEncoder, load_encoder
from data.ranking_world import encode, load_world, make_fold
from data.similarity_lists import ListMaker, build_combined_similarity_loader

MODULE = """
import torch

class Quadrants:
    def __call__(self, images):
        grey = torch.from_numpy(images).float().div(255)[:, None]
        return torch.nn.functional.adaptive_avg_pool2d(grey, 4).flatten(1)

class Sums:
    def __call__(self, images):
        return torch.from_numpy(images).sum((1, 2))

class Demanding:
    def __init__(self, path):
        self.path = path

class Endless:
    def __call__(self, images):
        return torch.full((len(images), 3), torch.inf)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A user's module with encoders, where Python finds it."""
    (tmp_path / "own_encoders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_encoders"
    sys.modules.pop("own_encoders", None)


@pytest.fixture(scope="module")
def images(benchmark):
    return next(task for task in benchmark if task.view == "plain").train.images


def split(features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels (n, 4, 4), and orientations (n, 2 spacings, 8, 4, 4)."""
    return features[:, :16].reshape(-1, 4, 4).numpy(), features[:, 16:].reshape(-1, 2, 8, 4, 4).numpy()


def test_features_are_finite_and_each_depends_on_its_own_image_alone(images):
    encoder = GradientEncoder()
    features = encoder(images)
    assert features.shape == (len(images), 272) and features.dtype == torch.float32
    assert features.isfinite().all() and torch.equal(encoder(images), features)
    assert torch.allclose(
        torch.cat([encoder(images[row : row + 1]) for row in range(len(images))]), features, atol=1e-6
    )
    assert len(features.unique(dim=0)) == len(np.unique(images, axis=0))


def test_constant_image_is_grey_and_has_no_edges():
    levels = np.array([0, 51, 255], np.uint8)
    grey, edges = split(GradientEncoder()(np.broadcast_to(levels[:, None, None], (3, 12, 12))))
    assert np.allclose(grey, np.array([0.0, 0.2, 1.0])[:, None, None]) and not edges.any()


def test_brightness_changes_grey_levels_alone(images):
    dark = images // 2
    (grey, edges), (lighter, same) = split(GradientEncoder()(dark)), split(GradientEncoder()(dark + 51))
    assert np.allclose(lighter, grey + 0.2, atol=1e-6) and np.allclose(same, edges, atol=1e-3)


@pytest.mark.parametrize(("turns", "orientation"), [(0, 0), (1, 6), (2, 4), (3, 2)])
def test_a_step_has_one_orientation(turns, orientation):
    """Dark to bright, to the right; then up, to the left, down."""
    step = np.zeros((1, 12, 12), np.uint8)
    step[:, :, 6:] = 200
    _, edges = split(GradientEncoder()(np.rot90(step, turns, axes=(1, 2))))
    assert [place for place in range(8) if edges[:, :, place].max() > 1e-3] == [orientation]


def test_rotated_image_has_rotated_cells_and_orientations(images):
    grey, edges = split(GradientEncoder()(images))
    turned_grey, turned = split(GradientEncoder()(np.rot90(images, axes=(1, 2))))
    assert np.allclose(turned_grey, np.rot90(grey, axes=(1, 2)), atol=1e-6)
    expected = np.roll(np.rot90(edges, axes=(3, 4)), -2, axis=2)
    assert np.allclose(turned, expected, atol=1e-3) and not np.allclose(turned, edges, atol=0.1)


@pytest.mark.parametrize("spec", ["", "data.image_encoder", ":GradientEncoder", "data.image_encoder:"])
def test_setting_that_names_no_class_is_refused(spec):
    with pytest.raises(ConfigError, match=f"encoder = '{spec}' must name a class: package.module:Class"):
        load_encoder(spec)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("no.such.module:Encoder", "can't be loaded: No module named 'no'"),
        ("data.image_encoder:VanishedEncoder", "can't be loaded: .*has no attribute 'VanishedEncoder'"),
        (".image_encoder:GradientEncoder", "can't be loaded: "),
        ("own_encoders:Demanding", "can't be made: .*missing 1 required positional argument: 'path'"),
        ("math:pi", "can't be made: 'float' object is not callable"),
    ],
)
def test_encoder_that_cannot_be_loaded_is_refused(own_module, spec, text):
    with pytest.raises(ConfigError, match=text):
        load_encoder(spec)


def test_default_encoder_is_loaded_by_its_name():
    assert isinstance(load_encoder("data.image_encoder:GradientEncoder"), GradientEncoder)


def test_a_user_s_own_encoder_makes_the_dataset_tokens(own_module, world):
    own = load_world(load_encoder(f"{own_module}:Quadrants"))
    assert {task.features.shape[1] for task in own.encoded} == {16} != {world.encoded[0].features.shape[1]}
    batch = next(iter(build_combined_similarity_loader(("test",), ListMaker(own, make_fold(own, "A", 0)))))
    assert batch["dataset_tokens"].shape[2] == 2 * 16 + 1 and batch["dataset_tokens"].isfinite().all()
    usual = next(iter(build_combined_similarity_loader(("test",), ListMaker(world, make_fold(world, "A", 0)))))
    assert not torch.equal(batch["pair_features"], usual["pair_features"]), "places of datasets are the encoder's too"


@pytest.mark.parametrize(("name", "shape"), [("Sums", r"\(\d+,\)"), ("Endless", r"\(\d+, 3\)")])
def test_encoder_that_gives_no_finite_rows_is_refused(own_module, benchmark, name, shape):
    with pytest.raises(
        DataError, match=rf"the encoder {name} gives {shape} for \d+ images; needed is one row of finite"
    ):
        encode(benchmark[0].train, load_encoder(f"{own_module}:{name}"))


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_clip_without_its_package_says_what_to_install():
    with pytest.raises(ConfigError, match="ClipEncoder needs `pip install transformers pillow`"):
        ClipEncoder()
