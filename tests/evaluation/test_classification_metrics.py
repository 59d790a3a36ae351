"""Metrics of classes, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from evaluation.classification_metrics import balanced_accuracy, macro_f1


def test_metrics_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    labels = draw.choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    predicted = np.where(draw.random(200) < 0.6, labels, draw.integers(0, 4, 200))
    counts = confusion_matrix(labels, predicted, labels=range(5))  # a fifth class that nobody sees
    assert balanced_accuracy(counts) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert macro_f1(counts) == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert np.isnan(macro_f1(np.zeros((3, 3)))) and np.isnan(balanced_accuracy(np.zeros((3, 3))))
