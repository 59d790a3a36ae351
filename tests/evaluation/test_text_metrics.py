"""Metrics against figures by hand, against slow formulas, and against the packages that others use."""

import itertools
import math
import random

import numpy as np
import pytest

from data.data_error import DataError
from evaluation import text_metrics
from evaluation.text_metrics import (
    METRICS,
    accuracy,
    bleu,
    chrf,
    exact_match,
    json_fields,
    json_validity,
    macro_f1,
    paired_bootstrap,
    pass_at_k,
    perplexity,
    rouge,
    score_texts,
    token_f1,
)

ANSWERS = ["the cat sat on the mat", "a dog", "", "it is Tuesday, I think"]
REFERENCES = ["the cat is on the mat", ["the dog barks", "A dog."], "nothing", "I think it is Tuesday"]


def test_perplexity():
    assert perplexity(3 * math.log(7), 3) == pytest.approx(7)
    assert perplexity(1000, 1) == math.inf
    with pytest.raises(DataError, match="needs a token"):
        perplexity(0.0, 0)


def test_exact_match_and_f1_by_hand():
    assert exact_match(ANSWERS, REFERENCES).samples.tolist() == [0, 0, 0, 0]
    assert exact_match(ANSWERS, REFERENCES, normalise=True).samples.tolist() == [0, 1, 0, 0]
    assert exact_match(["a", "b"], ["a", "c"]).value == 0.5
    # Without articles: cat sat on mat / cat is on mat share 3 of 4; the last has all words of its reference.
    assert token_f1(ANSWERS, REFERENCES).samples.tolist() == pytest.approx([0.75, 1, 0, 1])
    assert token_f1(["x y y", ""], ["y y y z", "the"]).samples.tolist() == pytest.approx([4 / 7, 1])


def test_bleu_and_chrf_are_those_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = ["the cat sat on the mat today", "x"], ["the cat is on the mat today", "y"]
    assert bleu(answers, references).value == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert chrf(answers, references).value == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert bleu(["a b c d e"], ["a b c d e"]).value == pytest.approx(100)
    several = bleu(ANSWERS, REFERENCES)
    one, two = (
        ["the cat is on the mat", "the dog barks", "nothing", "I think it is Tuesday"],
        [None, "A dog.", None, None],
    )
    assert several.value == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, [one, two]).score)
    assert several.samples.shape == (4,) and several.samples[2] == 0 and several.scale == 100


def slow_chrf(answer: str, reference: str) -> float:
    """chrF2 of one sentence, from its definition (Popovic 2015): means of the n-gram precisions and recalls."""
    answer, reference = answer.replace(" ", ""), reference.replace(" ", "")
    shares = []
    for size in range(1, 7):
        said = [answer[n : n + size] for n in range(len(answer) - size + 1)]
        wanted = [reference[n : n + size] for n in range(len(reference) - size + 1)]
        left, shared = list(wanted), 0
        for gram in said:
            if gram in left:
                left.remove(gram)
                shared += 1
        if said and wanted:
            shares.append((shared / len(said), shared / len(wanted)))
    precision, recall = np.mean(shares, axis=0)
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def test_chrf_is_its_definition():
    pytest.importorskip("sacrebleu")
    for answer, reference in (
        ("the cat sat", "the cats sat down"),
        ("abcdefgh", "abcdxfgh"),
        ("été à", "l'été à Paris"),
    ):
        assert chrf([answer], [reference]).samples[0] == pytest.approx(slow_chrf(answer, reference), abs=1e-6)


def longest_common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, by trying all."""
    for size in range(len(first), 0, -1):
        for chosen in itertools.combinations(first, size):
            rest = iter(second)
            if all(word in rest for word in chosen):
                return size
    return 0


def test_rouge_is_its_definition():
    pytest.importorskip("rouge_score")
    said, wanted = "the cat sat on the mat", "the big cat is on a mat"
    common = longest_common(said.split(), wanted.split())
    assert rouge([said], [wanted]).value == pytest.approx(2 * common / (6 + 7))
    assert rouge([said], [wanted], "rouge1").value == pytest.approx(2 * 4 / (6 + 7))
    assert rouge([said], [["no", said]], "rouge2").value == 1
    assert rouge(["Straße 猫が"], ["straße 猫は"], "rouge1").value == pytest.approx(2 / 3)  # the package alone says 0


def test_json_validity():
    answers = ['{"a": 1}', "[1]", '{"a": NaN}', "{'a': 1}", '```{"a": 1}```', "", "[" * 100_000]
    assert json_validity(answers).samples.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert json_validity(answers, keys=["a"]).samples.tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_pass_at_k_is_the_share_of_choices_with_one_that_passes():
    for samples, passed, k in ((5, 2, 3), (6, 1, 2), (4, 0, 2), (4, 4, 1), (7, 3, 5), (3, 2, 2)):
        results = [True] * passed + [False] * (samples - passed)
        chosen = [any(choice) for choice in itertools.combinations(results, k)]
        assert pass_at_k(samples, passed, k) == pytest.approx(sum(chosen) / len(chosen))
    assert 0 < pass_at_k(2000, 1, 1000) < 1  # no overflow
    with pytest.raises(DataError, match="k must be 1 to 2"):
        pass_at_k(2, 1, 3)


def test_paired_bootstrap_by_all_resamples():
    first, second = [0.0, 1.0, 0.0, 0.3, 0.6], [1.0, 1.0, 0.5, 0.1, 0.6]
    apart = [1.0, 0.0, 0.5, -0.2, 0.0]
    means = [np.mean([apart[n] for n in drawn]) for drawn in itertools.product(range(5), repeat=5)]
    found = paired_bootstrap(first, second, resamples=40_000)
    assert (found.difference, found.count) == (pytest.approx(np.mean(apart)), 5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.021)
    assert found.verdict == "not clear" and "not clear" in str(found)


def test_better_may_be_said_where_the_interval_has_no_zero():
    draw = random.Random(0)
    first = [draw.random() for _ in range(200)]
    second = [value + 0.05 + 0.1 * draw.random() for value in first]
    better, worse = paired_bootstrap(first, second), paired_bootstrap(second, first)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better == paired_bootstrap(np.array(first), np.array(second))  # the same seed
    # Pairs say more than the two means: unpaired, their intervals would overlap.
    assert better.high - better.low < 0.02
    assert paired_bootstrap(first, first).verdict == "not clear"


def test_the_interval_covers_what_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        difference = draw.normal(0.3, 1.0, 60)
        found = paired_bootstrap(np.zeros(60), difference, seed=number, resamples=600)
        covered += found.low <= 0.3 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_bad_input_is_told(monkeypatch):
    for words, call in (
        ("2 answers and 1 references", lambda: exact_match(["a", "b"], ["a"])),
        ("needs an answer", lambda: token_f1([], [])),
        ("answer 1 has no reference", lambda: token_f1(["a"], [[]])),
        ("there is no metric meteor; allowed are exact_match", lambda: score_texts(["meteor"], ["a"], ["a"])),
        ("3 and 4 scores", lambda: paired_bootstrap([0, 1, 2], [0, 1, 2, 3])),
        ("at least 3 are needed", lambda: paired_bootstrap([0, 1], [0, 1])),
        ("not finite", lambda: paired_bootstrap([0, 1, 2], [0, 1, math.nan])),
    ):
        with pytest.raises(DataError, match=words):
            call()

    def missing(name, **options):
        raise ImportError(name)

    monkeypatch.setitem(text_metrics.__dict__, "__import__", missing)
    with pytest.raises(DataError, match="BLEU needs sacrebleu, which is not installed: pip install sacrebleu"):
        bleu(["a"], ["a"])
    with pytest.raises(DataError, match="pip install rouge-score"):
        rouge(["a"], ["a"])


def test_metrics_by_name():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    of_any_text = [name for name in METRICS if name != "json_fields"]  # whose references are JSON
    scores = score_texts(of_any_text, ["the cat", "{}"], ["the cat", "{}"])
    assert all(score.value == pytest.approx(score.scale) for name, score in scores.items()
               if name in ("exact_match", "f1", "bleu", "chrf") and name != "bleu")  # fmt: skip
    assert scores["json_validity"].value == 0.5 and scores["rougeL"].samples[0] == 1
    assert all(score.samples.shape == (2,) for score in scores.values())


def test_fields_of_json_by_hand():
    wanted = '{"name": "Ann", "n": 3, "at": {"city": "Leeds"}, "tags": ["a", "b"]}'
    said = [
        '{"n": 3, "name": "Ann ", "tags": ["a", "b"], "at": {"city": "Leeds"}}',  # order and blanks around don't count
        '{"name": "Bob", "n": 3, "tags": ["b", "a"]}',  # 1 of 4 fields said is right, of 5 wanted
        f"Here it is: {wanted}", "[]", '{"n": "3"}',
    ]  # fmt: skip
    assert json_fields(said, [wanted] * 5).samples.tolist() == pytest.approx([1, 2 / 9, 0, 0, 0])
    assert json_fields(["{}", "[NaN]"], ["{}", "[1]"]).samples.tolist() == [1, 0]
    with pytest.raises(DataError, match="needs references in JSON"):
        json_fields(["{}"], ["no JSON"])


def test_labels_by_hand_and_as_scikit_learn_has_them():
    wanted = ["refund", "refund", "refund", "login", "A"]
    said = ["Refund.", "login", "a refund", " LOGIN\n", '"a"']
    assert accuracy(said, wanted).samples.tolist() == [1, 0, 0, 1, 1]
    # refund: 1 right of 3 wanted and 1 said; login: 1 of 1 and 2; a: 1 of 1 and 1. `a refund` is none of them.
    assert macro_f1(said, wanted).value == pytest.approx((2 / 4 + 2 / 3 + 1) / 3)
    assert macro_f1(said, wanted).samples.tolist() == [1, 0, 0, 1, 1]
    metrics = pytest.importorskip("sklearn.metrics")
    numbers = random.Random(0)
    wanted, said = ([numbers.choice("abc") for _ in range(50)] for _ in range(2))
    assert macro_f1(said, wanted).value == pytest.approx(metrics.f1_score(wanted, said, average="macro"))
