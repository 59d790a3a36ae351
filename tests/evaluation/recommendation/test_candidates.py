"""Limits on models, before anything is loaded."""

import pytest

from data.data_error import DataError
from data.pretrained.zoo_manifest import ZooEntry
from evaluation.recommendation.candidates import Limits, choose_candidates, read_amount, short, size

ZOO = [
    ZooEntry("timm/small", "timm", "small", licence="apache-2.0", parameters=5_000_000, gflops=0.4),
    ZooEntry("timm/large", "timm", "large", licence="cc-by-nc-4.0", parameters=80_000_000, gflops=15.0),
    ZooEntry("torchvision/unknown", "torchvision", "unknown"),
]


def test_amounts():
    assert [read_amount(text) for text in ("30M", "1.5B", "8GB", "8GiB", "2e7", "500k", "12")] == [
        3e7, 1.5e9, 8e9, 8 * 1024**3, 2e7, 5e5, 12
    ]  # fmt: skip
    for text in ("", "M", "-3", "0", "3 apples", "nan"):
        with pytest.raises(ValueError, match="must be a number above 0"):
            read_amount(text)
    assert [short(count) for count in (999, 24_600, 5.42e6, 123e6, 1.2e9)] == ["999", "24.6k", "5.42M", "123M", "1.2B"]
    assert [size(count) for count in (500, 5.1e9, 64e9)] == ["500 B", "5.1 GB", "64 GB"]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(), ["timm/small", "timm/large", "torchvision/unknown"]),
        (Limits(parameters=3e7), ["timm/small", "torchvision/unknown"]),
        (Limits(gflops=20), ["timm/small", "timm/large", "torchvision/unknown"]),
        (Limits(licences=("apache-2.0", "mit")), ["timm/small", "torchvision/unknown"]),
    ],
)
def test_what_is_not_known_is_let_through_until_it_is_loaded(limits, kept):
    assert [entry.name for entry in choose_candidates(ZOO, [], limits)[0]] == kept


def test_once_loaded_a_model_without_a_licence_is_left_out_by_a_limit_on_licences():
    limits = Limits(licences=("mit",))
    assert limits.refusal(1, 1, None, None, loaded=True) == ("--licence", "nobody says its licence")
    assert limits.refusal(1, 1, "MIT", None, loaded=True) is None
    assert Limits(memory=1e9).refusal(1, 1, None, 2e9, loaded=True) == ("--memory", "2.0 GB for fine-tuning")


def test_where_nothing_is_left_it_is_said_what_to_relax():
    with pytest.raises(DataError) as caught:
        choose_candidates(ZOO[:2], [], Limits(parameters=1e8, gflops=0.1, licences=("mit",)))
    assert str(caught.value) == (
        "no model is left: 2 by --max-gflops of 2 models: the cheapest takes 0.4 GFLOPs an image. Relax --max-gflops."
    )
    with pytest.raises(DataError, match=r"--models: small is none of the 3 models of the zoo. Did you mean timm/small"):
        choose_candidates(ZOO, ["small"], Limits())
