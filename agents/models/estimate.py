"""What tuning a model takes: memory and time, from its sizes."""

from dataclasses import dataclass

from agents.models.open_model import OpenModel

PROCESS = 480 << 20
"""Bytes of a training process before it has a model: Python, torch and what they load."""
_LOGITS = 1 << 23  # logits that there are at a time, as the loss computes them
_OF_MOMENTS = 16  # bytes of a trained weight: itself, its gradient, two moments, in fp32
_SHARE_OF_PEAK = 0.3  # of what multiplying large matrices reaches, a training does (bench/tune_memory.py)


@dataclass(frozen=True)
class TuningPlan:
    """How a model would be tuned.

    Attributes:
        tokens: tokens of a batch.
        rank: rank of the adapter; 0 trains all weights.
        weight_bytes: bytes of a weight: 4, or 2 where the frozen model is in bf16.
        recompute: whether activations are computed again in backward.
    """

    tokens: int
    rank: int = 16
    weight_bytes: int = 4
    recompute: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes that tuning takes at its peak, by what they are for."""

    weights: int
    adapter: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """All of it, without what the process takes before it has a model; a tenth lies between what is in use."""
        return round(1.1 * (self.weights + self.adapter + self.activations + self.working))


def adapter_weights(model: OpenModel, rank: int) -> int:
    """Return the number of weights of an adapter on attention and feed-forward layers.

    Args:
        model: the model.
        rank: rank of the adapter.
    """
    return model.layers * sum(rank * (one + other) for one, other in model.linear_sizes)


def memory_of(model: OpenModel, plan: TuningPlan) -> Memory:
    """Estimate the memory of a training step.

    Args:
        model: the model.
        plan: how it is tuned.
    """
    trained = adapter_weights(model, plan.rank) if plan.rank else model.parameters
    weights = model.parameters * plan.weight_bytes if plan.rank else 0
    # What a layer keeps for backward of each token: the inputs of its linear layers and norms (5 widths), queries, keys
    # and values, gate, up and their product (3 mlp widths), and what each pair of adapter matrices has between them.
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    of_layer = 5 * model.width + q + 2 * kv + 3 * model.mlp_width + 7 * plan.rank + model.heads + 2
    kept = model.width * model.layers + of_layer if plan.recompute else of_layer * model.layers
    # Gradients on their way through a layer, and the logits of a part of the batch with their softmax.
    logits = 3 * min(_LOGITS, plan.tokens * model.vocabulary)
    on_the_way = plan.tokens * (3 * model.mlp_width + 2 * model.width)
    return Memory(weights, _OF_MOMENTS * trained, 4 * plan.tokens * kept, 4 * (logits + on_the_way))


def flops_of_token(model: OpenModel, plan: TuningPlan, length: int) -> int:
    """Return the floating-point operations that training on a token takes.

    Args:
        model: the model.
        plan: how it is tuned.
        length: tokens of a row, by which attention grows.
    """
    forward = 2 * model.parameters + 2 * model.layers * model.heads * model.head_dim * length
    # Backward takes as much again for what goes through, and once more for the gradients of weights that are trained.
    passes = 2 + (1 if not plan.rank else 0) + (1 if plan.recompute else 0)
    return passes * forward + (6 * adapter_weights(model, plan.rank) if plan.rank else 0)


def tokens_per_second(model: OpenModel, plan: TuningPlan, length: int, flops: float) -> float:
    """Estimate the tokens that a machine trains on in a second.

    Args:
        model: the model.
        plan: how it is tuned.
        length: tokens of a row.
        flops: floating-point operations a second that the machine reaches in multiplying large matrices.
    """
    return _SHARE_OF_PEAK * flops / flops_of_token(model, plan, length)
