"""Drawn tokens against the distributions that the settings stand for, and what a logprob means."""

import math

import pytest
import torch

from llm.sampling_settings import SamplingSettings
from llm.token_choice import SampleRandom, TokenChoice, likeliest

CPU = torch.device("cpu")
DRAWS = 20_000


def choose(logits, **settings):
    rows = [SamplingSettings(**settings)] * len(logits)
    choice = TokenChoice(rows, CPU)
    random = SampleRandom(settings.get("seed", 3), 0)
    return choice.choose(logits, [random.next() for _ in choice.drawn])


def wanted(logits: torch.Tensor, temperature=1.0, top_k=None, top_p=1.0) -> torch.Tensor:
    """The distribution, by a slow formula in float64."""
    shares = (logits.double() / temperature).softmax(-1)
    order = shares.argsort(descending=True).tolist()[: top_k or len(shares)]
    mass, kept, total = 0.0, [], sum(shares[i].item() for i in order)
    for token in order:
        if kept and mass >= top_p * total:
            break
        kept.append(token)
        mass += shares[token].item()
    found = torch.zeros_like(shares)
    found[kept] = shares[kept] / mass
    return found


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6}, {"temperature": 1.7}, {"top_k": 5}, {"top_p": 0.7}, {"top_p": 0.9, "top_k": 12},
     {"temperature": 1.3, "top_p": 0.99}, {"temperature": 0.5, "top_k": 3, "top_p": 0.8}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("vocabulary", [20, pytest.param(400, marks=pytest.mark.slow), 1500])  # the last: by blocks
def test_distribution_by_chi_square(settings, vocabulary):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 2
    shares = wanted(logits, **settings)
    counts = torch.zeros(vocabulary)
    for begin in range(0, DRAWS, 2000):
        found = choose(logits.expand(2000, -1), seed=begin, **settings)
        counts += torch.bincount(torch.tensor(found.tokens), minlength=vocabulary)
    assert counts[shares == 0].sum() == 0, "what was cut off is never drawn"
    often = shares * DRAWS >= 5  # as the test needs; the others are counted together
    observed = [*counts[often].tolist(), counts[~often].sum().item()]
    expected = [*(shares[often] * DRAWS).tolist(), shares[~often].sum().item() * DRAWS]
    cells = [(o, e) for o, e in zip(observed, expected, strict=True) if e > 1e-6]
    square = sum((o - e) ** 2 / e for o, e in cells)
    freedom = len(cells) - 1
    # The 99.99 % quantile by Wilson and Hilferty.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else 1e-9
    assert square <= limit


@pytest.mark.parametrize("vocabulary", [1024, 1500, 49152])
def test_a_large_vocabulary_is_drawn_from_in_its_order(vocabulary):
    """The token at which the running sum passes the random part, by a slow formula in float64."""
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(2)) * 3
    logits[0, 256:512] = -torch.inf  # a block without any share
    shares = logits[0].double().softmax(-1)
    numbers = torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    numbers[:2] = torch.tensor([0.0, 1 - 1e-12])
    found = TokenChoice([SamplingSettings()] * 300, CPU).choose(logits.expand(300, -1), numbers.tolist())
    tokens = torch.tensor(found.tokens)
    sums = shares.cumsum(0)
    before = sums - shares
    assert ((before[tokens] - 1e-6 <= numbers) & (numbers <= sums[tokens] + 1e-6)).all()
    assert (shares[tokens] > 0).all() and found.tokens[0] == 0
    right = torch.searchsorted(sums, numbers, right=True)
    assert (tokens == right).float().mean() > 0.95  # the others lie at a border, by rounding
    assert torch.tensor(found.logprobs).sub(shares[tokens].log()).abs().max() < 1e-4


def test_wrong_distributions_are_seen():
    logits = torch.randn(20, generator=torch.Generator().manual_seed(1)) * 2
    found = choose(logits.expand(DRAWS, -1), temperature=0.9)
    counts, shares = torch.bincount(torch.tensor(found.tokens), minlength=20), wanted(logits) * DRAWS
    assert ((counts - shares) ** 2 / shares).sum() > 100


def test_nucleus_larger_than_what_is_sorted_first():
    logits = torch.zeros(4, 3000)
    logits[:, 7] = 1.0
    kept = set(choose(logits.repeat(500, 1), top_p=0.5).tokens)
    assert len(kept) > 500, "a flat distribution's nucleus is 1500 tokens"
    assert wanted(logits[0], top_p=0.5).count_nonzero() >= 1498


def test_meaning_of_a_logprob():
    logits = torch.tensor([[2.0, 0.0]])
    raw = -0.1269
    for settings, right in [
        ({"temperature": 0.5, "top_k": 1}, raw), ({"temperature": 0}, raw), ({"temperature": 1e-4}, raw),
        ({"temperature": 0.5, "logprobs_of": "sampling", "seed": 4}, -0.0181),
        ({"temperature": 0, "logprobs_of": "sampling"}, 0.0), ({"top_p": 0.5, "logprobs_of": "sampling"}, 0.0),
        ({"top_p": 0.5}, raw), ({"seed": 4}, raw),
    ]:  # fmt: skip
        found = choose(logits, **settings)
        assert found.tokens == [0] and found.logprobs[0] == pytest.approx(right, abs=1e-4), settings


def test_likeliest_tokens():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]])
    rows = [SamplingSettings(temperature=0, logprobs=2), SamplingSettings(temperature=0)]
    found = TokenChoice(rows, CPU).choose(logits, [])
    assert found.tokens == [1, 0] and found.likeliest[1] is None
    assert [token for token, _ in found.likeliest[0]] == [1, 2]
    assert found.likeliest[0][0][1] == pytest.approx(found.logprobs[0])
    assert len(likeliest(logits, logits.logsumexp(-1), 99)[0]) == 3


def test_rows_of_all_kinds_together_are_as_alone():
    kinds = [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 0.5}, {"top_p": 0},
             {"temperature": 2.0, "top_p": 0.95, "logprobs_of": "sampling"}]  # fmt: skip
    logits = torch.randn(len(kinds), 300, generator=torch.Generator().manual_seed(2))
    randoms = [0.05, 0.93, 0.5, 0.31, 0.77]
    choice = TokenChoice([SamplingSettings(**kind) for kind in kinds], CPU)
    together = choice.choose(logits, randoms)
    assert choice.drawn == [0, 2, 3, 4, 6]
    for row, kind in enumerate(kinds):
        mine = [randoms[choice.drawn.index(row)]] if row in choice.drawn else []
        alone = TokenChoice([SamplingSettings(**kind)], CPU).choose(logits[row : row + 1], mine)
        assert alone.tokens == [together.tokens[row]]
        assert alone.logprobs == pytest.approx([together.logprobs[row]], abs=1e-6)


def test_random_numbers_depend_on_seed_and_sample_alone():
    def numbers(seed, index):
        random = SampleRandom(seed, index)
        return [random.next() for _ in range(100)]

    assert numbers(7, 0) == numbers(7, 0)
    again = SampleRandom(7, 0)
    first = [again.next() for _ in range(70)]
    again.give_back(first[60:])
    assert [*first[:60], *(again.next() for _ in range(40))] == numbers(7, 0)
    different = [numbers(7, 0), numbers(7, 1), numbers(8, 0), numbers(-7, 0), numbers(2**64 + 7, 0), numbers(None, 0),
                 numbers(None, 0)]  # fmt: skip
    assert len({tuple(each) for each in different}) == 7
    assert all(0 <= number < 1 for number in different[0]) and 0.4 < sum(different[0]) / 100 < 0.6


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-4, 1.0])
def test_logits_that_are_not_finite_are_told(temperature):
    logits = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]])
    found = choose(logits, temperature=temperature)
    assert math.isfinite(found.logprobs[0]) and math.isnan(found.logprobs[1]) and math.isnan(found.logprobs[2])
    assert temperature == 1.0 or found.tokens[0] == 1
