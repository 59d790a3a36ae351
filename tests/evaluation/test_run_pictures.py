"""Pictures that are drawn from what a trainer leaves in its run folder."""

import json
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from evaluation.plots.autoencoder_pictures import pictures as autoencoder_pictures
from evaluation.plots.figures import PLOT_STYLE
from evaluation.plots.run_pictures import pictures_of
from evaluation.plots.run_plots import plot_runs
from evaluation.plots.token_pictures import pictures as token_pictures
from evaluation.ranking.ranking_pictures import pictures as ranking_pictures
from storage.saved_run import RunDamagedError, load_run

FAMILIES, DOMAINS = ("cnn", "mlp"), ("digits", "letters", "signs")


def write_rankings(folder: Path, tasks: dict[str, tuple[list[float], list[float]]]) -> Path:
    content = {name: {"scores": scores, "accuracy": accuracy} for name, (scores, accuracy) in tasks.items()}
    (folder / "rankings.json").write_text(json.dumps({"models": ["a"], "tasks": content}))
    return folder / "rankings.json"


def write_autoencoder(folder: Path, **changes) -> Path:
    """24 networks of two families that lie far apart; two examples whose reconstructions are off by a known share."""
    draw = np.random.default_rng(0)
    number = np.arange(24)
    weights = draw.normal(size=(4, 6))
    arrays = {
        "tokens": (draw.normal(size=(24, 8)) + 50 * (number % 2)[:, None]).astype(np.float32),
        "families": np.array(FAMILIES)[number % 2], "domains": np.array(DOMAINS)[number % 3], "held_out": number < 5,
        "examples": np.array(["first", "$econd"]),
        "layer_0": np.array("conv.weight"), "weights_0": weights, "reconstruction_0": 0.9 * weights,
        "reference_0": 0.5 * weights,
        "layer_1": np.array("fc.weight"), "weights_1": weights.T, "reconstruction_1": 1.25 * weights.T,
        "reference_1": 0 * weights.T,
    }  # fmt: skip
    np.savez(folder / "autoencoder.npz", **(arrays | changes))
    return folder / "autoencoder.npz"


def write_tokens(folder: Path) -> Path:
    """The trained run says the truth, up to what tasks have in common; the untrained one says nothing."""
    draw = np.random.default_rng(0)
    truth = np.array([-1.0, 1.0, -2.0, 2.0])
    arrays = {
        "test": np.array([1, 3, 4, 5]), "truth": truth, "families": np.array(["cnn", "mlp"])[[0, 0, 1, 1, 0, 1]],
        "trained_head": np.array([9.0, 3.5, 9.0, 5.5, 2.5, 6.5]), "untrained_head": np.full(6, 3.0),
        "tasks": np.array([0, 0, 1, 1]),
        "trained_tokens": draw.normal(size=(6, 3)), "untrained_tokens": draw.normal(size=(6, 3)),
    }  # fmt: skip
    np.savez(folder / "tokens.npz", **arrays)
    return folder / "tokens.npz"


def styled(draw):
    with matplotlib.rc_context(PLOT_STYLE):
        return list(draw)


def test_the_ranking_s_rows_are_true_ranks_in_predicted_order(tmp_path):
    file = write_rankings(tmp_path, {
        "wrong": ([4, 3, 2, 1], [0.1, 0.2, 0.3, 0.4]),
        "right": ([1, 3, 2, 4], [0.1, 0.8, 0.3, 0.9]),
        "swapped": ([4, 3, 2, 1], [0.9, 0.7, 0.8, 0.1]),
    })  # fmt: skip
    (picture,) = styled(ranking_pictures(file))
    left, right = picture.figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == ["right  +1.00", "swapped  +0.67", "wrong  -1.00"]
    assert left.images[0].get_array().tolist() == [[1, 2, 3, 4], [1, 3, 2, 4], [4, 3, 2, 1]]
    assert picture.figure.get_suptitle() == "Mean over 3 test tasks: Kendall 0.222, Spearman 0.267"
    share = np.asarray(right.images[0].get_array())  # [true rank, predicted rank]
    assert np.allclose(share.sum(1), 1) and np.allclose(share[0], [2 / 3, 0, 0, 1 / 3])


def test_many_tasks_ties_and_lists_that_say_nothing_are_drawn(tmp_path):
    tasks = {f"task {number} with a name that is far too long": ([1, 1, number, 2], [0.5, 0.5, 0.6, 0.1])
             for number in range(99)}  # fmt: skip
    tasks |= {"flat": ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]), "short": ([1, 2], [0.5, 0.6]), "one": ([1], [0.5])}
    (picture,) = styled(ranking_pictures(write_rankings(tmp_path, tasks)))
    assert picture.figure.axes[0].images[0].get_array().shape == (40, 4)
    assert picture.figure.axes[0].get_title(loc="left").startswith("Test tasks (40 of 101)")
    assert not styled(ranking_pictures(write_rankings(tmp_path, {})))


def test_reconstructions_share_their_colours_and_name_their_error(tmp_path):
    reconstructions, tokens = styled(autoencoder_pictures(write_autoencoder(tmp_path)))
    assert (reconstructions.name, tokens.name) == ("reconstructions", "model_tokens")
    axes = reconstructions.figure.axes[:6]
    assert axes[0].get_title(loc="left") == "first, conv.weight 4 x 6"
    assert axes[2].get_title(loc="left") == "difference: error 10.0%, reference alone 50.0%"
    assert axes[3].get_title(loc="left") == r"\$econd, fc.weight 4 x 6", "laid down, and no formula"
    assert axes[5].get_title(loc="left") == "difference: error 25.0%", "there is no reference"
    for row in (axes[:3], axes[3:]):
        assert len({axis.images[0].get_clim() for axis in row}) == 1
        weights, back, difference = (np.asarray(axis.images[0].get_array()) for axis in row)
        assert np.allclose(weights - back, difference)


def test_the_map_tells_families_domains_and_held_out_networks(tmp_path):
    _, tokens = styled(autoencoder_pictures(write_autoencoder(tmp_path)))
    left, right = tokens.figure.axes
    assert left.get_title(loc="left") == "By family: 100% of neighbours agree (chance 48%)"
    assert right.get_title(loc="left").startswith("Within families, by domain: ")
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in (left, right)]
    assert legends == [[*FAMILIES, "held out"], list(DOMAINS)]
    for axis, colours in ((left, 2), (right, 3)):
        assert len(axis.lines) == 24 and len({str(line.get_color()) for line in axis.lines}) == colours
        assert [line.get_markerfacecolor() == "none" for line in axis.lines] == [True] * 5 + [False] * 19
        assert [line.get_marker() for line in axis.lines] == ["o", "s"] * 12


def test_pictures_stand_beside_the_plots_of_a_run_and_not_in_a_comparison(tmp_path):
    run = tmp_path / "20260101-000000"
    run.mkdir()
    content = {"schema_version": 1, "trainer": "A", "state": "finished", "best": None, "summary": {}}
    (run / "metrics.json").write_text(json.dumps(content | {"history": {"train_loss": [0.5]}}))
    write_rankings(run, {"task": ([1, 2, 3], [0.1, 0.2, 0.3])})
    names = [path.name for path in plot_runs([load_run(run)], tmp_path / "one")]
    assert names == ["overview.png", "loss.png", "predicted_ranks.png"]
    both = plot_runs([load_run(run), load_run(run)], tmp_path / "two")
    assert [path.name for path in both] == ["overview.png", "loss.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("rankings.json", b"{"), ("rankings.json", b'{"tasks": {"a": {"scores": [1, 2]}}}'), ("autoencoder.npz", b"PK")],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunDamagedError, match=f"cannot read .*{name}: .* A trainer writes it; run it again."):
        list(pictures_of(tmp_path))


def test_arrays_are_never_unpickled(tmp_path):
    write_autoencoder(tmp_path, examples=np.array([object()]))
    with zipfile.ZipFile(tmp_path / "autoencoder.npz") as archive:
        assert "examples.npy" in archive.namelist()
    with pytest.raises(RunDamagedError, match="allow_pickle"):
        list(pictures_of(tmp_path))


def test_predictions_of_tokens_stand_beside_those_of_untrained_ones(tmp_path):
    predictions, places = styled(token_pictures(write_tokens(tmp_path)))
    titles = [axis.get_title(loc="left") for axis in predictions.figure.axes]
    assert titles == ["untrained: R2 0.00 on 4 networks", "trained: R2 1.00 on 4 networks"]
    trained = predictions.figure.axes[1].lines
    assert [line.get_label() for line in trained[1:]] == ["cnn", "mlp"]
    assert trained[1].get_xdata().tolist() == trained[1].get_ydata().tolist() == [-1.0, -2.0]
    shades = places.figure.axes[0].collections[0].get_array()
    assert shades.tolist() == [1 / 3, 2 / 3, 0.0, 1.0], "from the worst to the best"
