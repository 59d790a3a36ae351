"""What measured results add: in drawn worlds intervals hold what fine-tuning reaches, and the order is better."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.recommendation.fine_tuned_accuracy import expect, gather
from evaluation.recommendation.level_groups import standings
from evaluation.recommendation.results_table import MeasuredResult

MODELS, IMAGES = 6, 300
ZOO = [(f"timm/m{number}", f"m{number}") for number in range(MODELS)]


def share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def draw_world(seed: int, known: int, with_probes: bool) -> tuple[list[MeasuredResult], np.ndarray, np.ndarray]:
    """Draw results on `known` datasets, and the truth and draws of probes on one more."""
    generator = np.random.default_rng(seed)
    quality, level = generator.normal(0, 0.35, MODELS), generator.normal(1, 0.7, known + 1)
    reached = level + quality[:, None] + generator.normal(0, 0.2, (MODELS, known + 1))
    probe = reached - 0.4 - generator.normal(0, 0.3, known + 1) - generator.normal(0, 0.3, reached.shape)
    probes = generator.binomial(IMAGES, share(probe)) / IMAGES
    results = [
        MeasuredResult(f"timm/m{m}", f"d{t}", "accuracy", float(share(reached[m, t])),
                       float(probes[m, t]) if with_probes else None, IMAGES)
        for m in range(MODELS) for t in range(known)
    ]  # fmt: skip
    own = probes[:, -1]
    draws = generator.beta(IMAGES * own + 0.5, IMAGES * (1 - own) + 0.5, (1000, MODELS))
    return results, share(reached[:, -1]), draws


@pytest.mark.parametrize(("known", "with_probes"), [(1, True), (6, True), (6, False)])
def test_intervals_cover_the_best_is_kept_and_the_first_is_better(known, with_probes):
    held, kept, regret, regret_of_probe = [], [], [], []
    for seed in range(60):
        results, truth, draws = draw_world(seed, known, with_probes)
        knowledge = gather(results, Path("table.csv"), ZOO, "digest")
        found = expect(knowledge, list(range(MODELS)), draws, MODELS)
        assert found.is_level_known is with_probes
        where = standings(found.draws)
        held += [each.low <= value <= each.high for each, value in zip(where, truth, strict=True)]
        kept.append(where[int(truth.argmax())].group == 1)
        regret.append(truth.max() - truth[int(np.argmax([each.expected for each in where]))])
        regret_of_probe.append(truth.max() - truth[int(draws.mean(0).argmax())])
    assert np.mean(kept) >= 0.93
    if with_probes:
        assert 0.83 <= np.mean(held) <= 0.97
    if known > 1:
        assert np.mean(regret) < 0.95 * np.mean(regret_of_probe)


def test_what_was_fine_tuned_on_these_images_is_believed():
    """The probe says .5 of all; one was fine-tuned on the same images and reached .9."""
    draws = np.random.default_rng(0).beta(150, 150, (2000, 3))
    own = MeasuredResult("m1", "photos", "accuracy", 0.9, 0.5, 300, dataset_digest="here")
    others = [MeasuredResult(f"m{m}", "other", "accuracy", (0.55, 0.7, 0.85)[m], 0.5, 300) for m in range(3)]
    found = expect(gather([own, *others], Path("t.csv"), ZOO, "here"), [0, 1, 2], draws, MODELS)
    where = standings(found.draws)
    assert where[1].expected == pytest.approx(0.9, abs=0.03) and where[1].high - where[1].low < 0.1
    assert found.remarks[1].startswith("fine-tuned on these images before: 0.900")
    assert where[0].high - where[0].low > 2 * (where[1].high - where[1].low)


def test_results_that_can_t_be_used_are_left_out_aloud():
    rows = [
        MeasuredResult("timm/m0", "a", "top1", 81.0), MeasuredResult("m1", "a", "top1", 75.0),
        MeasuredResult("m1", "a", "perplexity", 3.0), MeasuredResult("stranger", "a", "top1", 60.0),
    ]  # fmt: skip
    knowledge = gather(rows, Path("t.csv"), ZOO, "x")
    assert knowledge.values.tolist() == [0.81, 0.75] and knowledge.models.tolist() == [0, 1]
    assert knowledge.ignored == "1 result of t.csv not used: no accuracy"
    assert gather(rows[2:], Path("t.csv"), ZOO, "x") is None


def test_another_budget_has_a_level_of_its_own():
    """One epoch reached .3 to .5 on these images, and ten .9: ten are asked about, the order is learned from both."""
    draws = np.random.default_rng(0).beta(150, 150, (2000, 3))

    def row(model: int, value: float, budget: str) -> MeasuredResult:
        return MeasuredResult(f"m{model}", "photos", "accuracy", value, 0.5, 300, dataset_digest="here", budget=budget)

    quick = [row(number, value, "1 epoch") for number, value in enumerate((0.3, 0.4, 0.5))]
    long = [row(0, 0.9, "10 epochs")]
    found = expect(gather([*quick, *long], Path("t.csv"), ZOO, "here"), [0, 1, 2], draws, MODELS)
    where = standings(found.draws)
    assert where[0].expected == pytest.approx(0.9, abs=0.03)
    assert where[2].expected > where[0].expected, "the best of the quick ones is expected to be better"
    assert where[1].expected > 0.85, "not pulled to what one epoch reaches"
    back = expect(gather([*long, *quick], Path("t.csv"), ZOO, "here"), [0, 1, 2], draws, MODELS)
    assert standings(back.draws)[1].expected == pytest.approx(0.4, abs=0.05), "the budget that was used last"
