"""What several tests of data read, read once."""

import pytest

from data.benchmark_tasks import plan_benchmark
from data.image_encoder import GradientEncoder
from data.ranking_world import load_world
from data.zoo_images import load_domains


@pytest.fixture(scope="session")
def image_domains():
    return load_domains()


@pytest.fixture(scope="session")
def benchmark(image_domains):
    return plan_benchmark(image_domains)


@pytest.fixture(scope="session")
def world():
    """The committed benchmark; tests that change it take `dataclasses.replace`."""
    return load_world(GradientEncoder())
