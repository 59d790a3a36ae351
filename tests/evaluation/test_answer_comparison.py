"""Scores of two models on the same samples, and how sure their difference is."""

import numpy as np
import pytest

from evaluation.answer_comparison import compared, compared_answers
from evaluation.text_metrics import paired_bootstrap


def test_means_gain_and_interval():
    before, after = [0.0, 1.0, 0.0, 0.5], [1.0, 1.0, 0.5, 0.5]
    found = compared("score", before, after)
    interval = paired_bootstrap(before, after)
    assert found == {"score": 0.75, "score_before": 0.375, "score_gain": 0.375, "score_gain_low": interval.low,
                     "score_gain_high": interval.high}  # fmt: skip
    assert compared("score", np.array([1.0, 2.0]), np.array([2.0, 4.0])) == {
        "score": 3.0, "score_before": 1.5, "score_gain": 1.5}  # fmt: skip


def test_answers_are_compared_to_the_letter_and_by_their_letters():
    pytest.importorskip("sacrebleu")
    found = compared_answers(["Aye.", "no", "x"], ["Aye!", "no", "so"], ["Aye!", "no", "so"])
    assert found["agreement"] == 1.0 and found["agreement_before"] == pytest.approx(1 / 3)
    assert found["chrf"] == pytest.approx(100) and 33 < found["chrf_before"] < 90
    assert "chrf" not in compared_answers(["a"], ["a"], ["a"], with_chrf=False)
