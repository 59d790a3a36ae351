"""All findings, and their order."""

from collections.abc import Callable, Iterator

from agents.findings import behaviour, curves, environment, labels, prompts, rows
from agents.findings.evidence import Evidence
from agents.state import Proposal

Find = Callable[[Evidence], Iterator[Proposal]]
FINDERS: tuple[Find, ...] = (
    environment.environment_fault, curves.out_of_memory, curves.instability, curves.learning_rate_too_high,
    rows.test_rows_in_training, prompts.template_mismatch, labels.mislabelled, rows.few_rows, rows.duplicated_rows,
    curves.overfitting, curves.underfitting, rows.truncated_rows, rows.imbalanced, behaviour.forgetting,
    rows.answers_cut_off, behaviour.bias_between_slices,
)  # fmt: skip
"""What is looked for. Each yields a proposal, whose changes are empty where a person has to find them."""


def findings_of(seen: Evidence) -> list[Proposal]:
    """Return what a round suffers from, the surest first; of the same weight in the order of `FINDERS`.

    Args:
        seen: what is known of it.
    """
    found = [seen.with_cost(one) for find in FINDERS for one in find(seen)]
    return sorted(found, key=lambda one: -one["weight"])
