"""How good answers are: against references, as JSON, by pass@k, and whether one system beats another."""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from data.data_error import DataError

References = Sequence[str | Sequence[str]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")  # of scripts without spaces, single characters
_PART = 2_000_000  # numbers drawn at once in the bootstrap
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class TextScore:
    """What a metric says of answers.

    Attributes:
        name: name of the metric.
        value: score of all answers; of BLEU and chrF the corpus score, of macro_f1 the mean over the labels, of the
            others the mean of the samples.
        samples: (N,) score of each answer.
        scale: the best possible score: 1, or 100 for BLEU and chrF as they are published.
    """

    name: str
    value: float
    samples: np.ndarray
    scale: float = 1.0


def perplexity(total_loss: float, total_weight: float) -> float:
    """Return the perplexity: exp of the mean loss of a token.

    Args:
        total_loss: sum of negative log-likelihoods, in nats, each times its weight.
        total_weight: sum of the weights: the number of tokens, where each counts as one.

    Raises:
        DataError: there is no token.
    """
    if total_weight <= 0:
        raise DataError(f"perplexity needs a token: the weights add up to {total_weight:g}.")
    return perplexity_of(total_loss / total_weight)


def perplexity_of(mean_loss: float) -> float:
    """Return the perplexity of a mean loss; infinite where a float has no place for it.

    Args:
        mean_loss: mean negative log-likelihood of a token, in nats.
    """
    return math.inf if mean_loss >= 709 else math.exp(mean_loss)


def normalised(text: str) -> str:
    """Bring an answer to the form in which SQuAD compares them: small letters, no punctuation, no articles."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", letters).split())


def exact_match(answers: Sequence[str], references: References, normalise: bool = False) -> TextScore:
    """Score 1 where an answer is one of its references, else 0.

    Args:
        answers: N answers.
        references: of each answer its reference, or several.
        normalise: compare as SQuAD does (`normalised`); else every character counts.
    """
    form: Callable[[str], str] = normalised if normalise else str
    pairs = _pairs(answers, references)
    return _mean("exact_match", [float(form(answer) in [form(each) for each in allowed]) for answer, allowed in pairs])


def token_f1(answers: Sequence[str], references: References) -> TextScore:
    """Score the words that answer and reference share, as SQuAD does: F1 of precision and recall, the best reference.

    Args:
        answers: N answers.
        references: of each answer its reference, or several.
    """

    def score(answer: str, reference: str) -> float:
        said, wanted = normalised(answer).split(), normalised(reference).split()
        if not said or not wanted:
            return float(said == wanted)
        shared = sum((Counter(said) & Counter(wanted)).values())
        return 2 * shared / (len(said) + len(wanted))

    pairs = _pairs(answers, references)
    return _mean("f1", [max(score(answer, each) for each in allowed) for answer, allowed in pairs])


def bleu(answers: Sequence[str], references: References, tokenize: str = "13a") -> TextScore:
    """Score n-grams of words that answers share with references: BLEU of the corpus, 0 to 100, as sacrebleu has it.

    Args:
        answers: N answers.
        references: of each answer its reference, or several.
        tokenize: how sacrebleu finds words: `13a`, or such as `zh` and `char` for scripts without spaces.

    Raises:
        DataError: sacrebleu is not installed.
    """
    metrics = _package("sacrebleu.metrics", "sacrebleu", "BLEU")
    pairs = _pairs(answers, references)
    corpus = metrics.BLEU(tokenize=tokenize).corpus_score(*_streams(pairs)).score
    sentence = metrics.BLEU(tokenize=tokenize, effective_order=True)
    samples = [sentence.sentence_score(answer, allowed).score for answer, allowed in pairs]
    return TextScore("bleu", float(corpus), np.array(samples), 100.0)


def chrf(answers: Sequence[str], references: References) -> TextScore:
    """Score n-grams of characters that answers share with references: chrF2 of the corpus, 0 to 100, by sacrebleu.

    Args:
        answers: N answers.
        references: of each answer its reference, or several.

    Raises:
        DataError: sacrebleu is not installed.
    """
    metric = _package("sacrebleu.metrics", "sacrebleu", "chrF").CHRF()
    pairs = _pairs(answers, references)
    samples = [metric.sentence_score(answer, allowed).score for answer, allowed in pairs]
    return TextScore("chrf", float(metric.corpus_score(*_streams(pairs)).score), np.array(samples), 100.0)


def rouge(answers: Sequence[str], references: References, kind: str = "rougeL") -> TextScore:
    """Score words in common: the F-measure of ROUGE, without stemming, the best reference.

    Args:
        answers: N answers.
        references: of each answer its reference, or several.
        kind: `rouge1`, `rouge2` or `rougeL`.

    Raises:
        DataError: rouge-score is not installed.
    """
    scorer = _package("rouge_score.rouge_scorer", "rouge-score", "ROUGE").RougeScorer([kind], tokenizer=_AnyScript())
    samples = [scorer.score_multi(allowed, answer)[kind].fmeasure for answer, allowed in _pairs(answers, references)]
    return _mean(kind, samples)


class _AnyScript:
    """Words for rouge-score, whose own ones are of a to z only: it scores 0 for other scripts without a word."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        """Return the words of a text in small letters."""
        return _WORDS.findall(text.lower())


def json_validity(answers: Sequence[str], keys: Sequence[str] = ()) -> TextScore:
    """Score 1 where an answer as a whole is JSON, and has some keys, else 0.

    Args:
        answers: N answers.
        keys: keys that an answer must have; it must be a mapping then.
    """

    def valid(answer: str) -> bool:
        try:
            value = json.loads(answer, parse_constant=_refuse_constant)  # NaN and Infinity are Python's, not JSON's
        except (ValueError, RecursionError):
            return False
        return not keys or (isinstance(value, dict) and all(key in value for key in keys))

    if not answers:
        raise DataError("json_validity needs an answer.")
    return _mean("json_validity", [float(valid(answer)) for answer in answers])


def json_fields(answers: Sequence[str], references: References) -> TextScore:
    """Score the fields that an answer's JSON and its reference's share: F1 of exact fields, the best reference.

    A field is a value with the way to it (`customer.name`); a list's are in their order. An answer that is no JSON as a
    whole scores 0.

    Args:
        answers: N answers.
        references: of each answer its reference, or several, as JSON text.

    Raises:
        DataError: a reference is no JSON.
    """

    def score(said: Counter[str] | None, reference: str) -> float:
        wanted = _fields_of(reference)
        if wanted is None:
            raise DataError(f"json_fields needs references in JSON; one is {reference[:80]!r}.")
        if not said or not wanted:
            return float(said == wanted)
        return 2 * sum((said & wanted).values()) / (sum(said.values()) + sum(wanted.values()))

    pairs = _pairs(answers, references)
    found = [(_fields_of(answer), allowed) for answer, allowed in pairs]
    return _mean("json_fields", [max(score(said, each) for each in allowed) for said, allowed in found])


def _fields_of(text: str) -> Counter[str] | None:
    """Return the fields of a JSON text, each its way and its value; None where it is no JSON."""
    fields = Counter[str]()

    def walk(value: object, way: str) -> None:
        if isinstance(value, dict) and value:
            for key, part in value.items():
                walk(part, f"{way}.{json.dumps(key)}")
        elif isinstance(value, list) and value:
            for number, part in enumerate(value):
                walk(part, f"{way}[{number}]")
        else:
            fields[f"{way}={json.dumps(value.strip() if isinstance(value, str) else value)}"] += 1

    try:
        walk(json.loads(text, parse_constant=_refuse_constant), "")
    except (ValueError, RecursionError):
        return None
    return fields


def label_of(text: str) -> str:
    """Return the label that an answer says: small letters, without blanks and signs around it.

    Args:
        text: the answer.
    """
    return text.strip().strip(string.punctuation + string.whitespace).casefold()


def accuracy(answers: Sequence[str], references: References) -> TextScore:
    """Score 1 where an answer says the label of its reference, whatever its case and the signs around it, else 0.

    Args:
        answers: N answers.
        references: of each answer its label, or several that are right.
    """
    pairs = _pairs(answers, references)
    right = [float(label_of(answer) in [label_of(each) for each in allowed]) for answer, allowed in pairs]
    return _mean("accuracy", right)


def macro_f1(answers: Sequence[str], references: References) -> TextScore:
    """Score labels so that rare ones count as much as frequent ones: mean over the references' labels of their F1.

    An answer that is none of these labels is a miss of the right one. The samples are 1 where the label is right, so a
    paired comparison of them is one of accuracies.

    Args:
        answers: N answers.
        references: of each answer its label; of several the first.
    """
    pairs = _pairs(answers, references)
    said = [label_of(answer) for answer, _ in pairs]
    wanted = [label_of(allowed[0]) for _, allowed in pairs]
    shared = Counter(one for one, other in zip(said, wanted, strict=True) if one == other)
    often, named = Counter(wanted), Counter(said)
    found = [2 * shared[label] / (often[label] + named[label]) for label in often]
    right = np.array([float(one == other) for one, other in zip(said, wanted, strict=True)])
    return TextScore("macro_f1", float(np.mean(found)), right)


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the probability that of k answers one passes, estimated from more answers than k without bias.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, "Evaluating Large Language Models Trained on Code".

    Args:
        samples: n, number of answers that were checked.
        passed: c, number of these that passed.
        k: number of answers that one may give, at most n.

    Raises:
        DataError: k is more than n, or c is.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise DataError(f"pass@{k} of {samples} answers of which {passed} passed: k must be 1 to {samples}.")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


METRICS: dict[str, Callable[[Sequence[str], References], TextScore]] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "bleu": bleu,
    "chrf": chrf,
    "rouge1": partial(rouge, kind="rouge1"),
    "rouge2": partial(rouge, kind="rouge2"),
    "rougeL": partial(rouge, kind="rougeL"),
    "json_validity": lambda answers, references: json_validity(answers),
    "json_fields": json_fields,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
}


def score_texts(names: Sequence[str], answers: Sequence[str], references: References) -> dict[str, TextScore]:
    """Score answers by several metrics.

    Args:
        names: names out of `METRICS`.
        answers: N answers.
        references: of each answer its reference, or several.

    Raises:
        DataError: an unknown metric, no answer, not as many references as answers, or a package that is missing.
    """
    strange = [name for name in names if name not in METRICS]
    if strange:
        raise DataError(f"there is no metric {strange[0]}; allowed are {', '.join(METRICS)}.")
    return {name: METRICS[name](answers, references) for name in names}


@dataclass(frozen=True)
class PairedComparison:
    """Whether one system is better than another on the same samples.

    Attributes:
        difference: mean of the second's scores less that of the first's.
        low: lower end of the 95 % interval of the difference.
        high: upper end of it.
        count: number of samples.
    """

    difference: float
    low: float
    high: float
    count: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not clear` where the interval has 0 in it: what may be said of the second."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not clear"

    def __str__(self) -> str:
        interval = f"[{self.low:+.4g}, {self.high:+.4g}]"
        return f"{self.difference:+.4g}, 95 % interval {interval} over {self.count:,} samples: {self.verdict}"


def paired_bootstrap(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 10_000
) -> PairedComparison:
    """Compare two systems by their scores on the same samples: paired bootstrap of the mean difference.

    It says how much the difference would vary with other test samples, not with other seeds of a training.

    Args:
        first: (N,) scores of one system.
        second: (N,) scores of the other one on the same samples, in the same order.
        seed: seed of the resampling.
        resamples: how often N samples are drawn with replacement.

    Returns:
        The difference with its percentile interval.

    Raises:
        DataError: fewer than 3 samples, not as many of one as of the other, or a score that is not finite.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise DataError(f"paired_bootstrap: {len(one)} and {len(other)} scores; both must be of the same samples.")
    if len(one) < 3:
        raise DataError(f"paired_bootstrap: {len(one)} samples say nothing of others; at least 3 are needed.")
    difference = other - one
    if not np.isfinite(difference).all():
        raise DataError("paired_bootstrap: a score is not finite.")
    generator, count, means = np.random.default_rng(seed), len(difference), []
    at_once = max(1, _PART // count)
    for start in range(0, resamples, at_once):
        drawn = generator.integers(0, count, (min(at_once, resamples - start), count))
        means.append(difference[drawn].mean(axis=1))
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return PairedComparison(float(difference.mean()), float(low), float(high), count)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _mean(name: str, samples: list[float]) -> TextScore:
    return TextScore(name, float(np.mean(samples)), np.array(samples))


def _pairs(answers: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    if not answers:
        raise DataError("a metric needs an answer; there is none.")
    if len(answers) != len(references):
        raise DataError(
            f"there are {len(answers)} answers and {len(references)} references; each answer needs its own."
        )
    allowed = [[each] if isinstance(each, str) else list(each) for each in references]
    if missing := [number for number, each in enumerate(allowed) if not each]:
        raise DataError(f"answer {missing[0] + 1} has no reference.")
    return list(zip(answers, allowed, strict=True))


def _streams(pairs: list[tuple[str, list[str]]]) -> tuple[list[str], list[list[Any]]]:
    """Return answers, and references as sacrebleu takes them: the first of each answer, the second of each, ..."""
    most = max(len(allowed) for _, allowed in pairs)
    streams = [[allowed[n] if n < len(allowed) else None for _, allowed in pairs] for n in range(most)]
    return [answer for answer, _ in pairs], streams


def _package(module: str, package: str, metric: str) -> Any:
    try:
        return __import__(module, fromlist=["_"])
    except ImportError as error:
        raise DataError(f"{metric} needs {package}, which is not installed: pip install {package}.") from error
