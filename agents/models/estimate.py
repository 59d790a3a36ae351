"""What tuning a model takes: memory and time, from its sizes."""

from dataclasses import dataclass

from agents.models.open_model import OpenModel

PROCESS = 480 << 20
"""Bytes of a training process before it has a model: Python, torch and what they load."""
_LOGITS = 1 << 23  # logits that there are at a time, as the loss computes them
_OF_STATE = 12  # bytes of a trained weight outside of backward: itself and its two moments, in fp32
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
    """Bytes that tuning takes at its peak, by what they are for.

    Attributes:
        weights: frozen weights.
        adapter: what is trained, with its moments.
        activations: what the forward pass keeps for the backward pass.
        working: what there is besides, where most is in use: in the backward pass of the last layer, or in the loss.
        gradients: at the end of the backward pass, which has let the activations go by then.
        holes: of the process's heap. C libraries put an aligned block only into a larger hole, so that what one layer's
            backward pass gives back is of little use to the next one's.
    """

    weights: int
    adapter: int
    activations: int
    working: int
    gradients: int
    holes: int

    @property
    def step(self) -> int:
        """Of a step: what it keeps and works on, or its gradients, whichever is more."""
        return max(self.activations + self.working, self.gradients)

    @property
    def total(self) -> int:
        """All of it, without what the process takes before it has a model."""
        return self.weights + self.adapter + self.step + self.holes


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
    tokens, width, mlp = plan.tokens, model.width, model.mlp_width
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    # What a layer keeps for backward of each token, in the dtype of the weights: the inputs of its norms and what these
    # make of them (4 widths), queries, keys, values and what is attended, gate, up and their product. In fp32 what each
    # pair of adapter matrices has between them, and of each norm and head a number.
    wide = 4 * width + 2 * q + 2 * kv + 3 * mlp + (q + kv if model.norms_heads else 0)
    exact = 7 * plan.rank + model.heads + 2
    of_layer = tokens * (wide * plan.weight_bytes + 4 * exact)
    state = tokens * width * plan.weight_bytes
    # The last norm keeps what it got, the loss its gradient by what that made, and all layers share the angles of
    # positions. Nothing is trained before the first layer of a frozen model, whose norm keeps nothing then.
    ends = 2 * state + tokens * model.head_dim * plan.weight_bytes - (state if plan.rank else 0)
    activations = ends + (state * model.layers + of_layer if plan.recompute else of_layer * model.layers)
    # Backward through the product of gate and up has five tensors as wide, and has let the product go; both ends are
    # gone, and the gradient of what goes around the layer waits. (In fp32: products of bf16 are made through copies.)
    in_layer = tokens * 4 * 4 * mlp - state
    # The loss makes the logits of some tokens at a time, while those before are still there; where they are trained
    # through, with what becomes of them.
    logits = tokens * model.vocabulary
    pieces = min(_LOGITS, logits) + min(_LOGITS, max(0, logits - _LOGITS)) if plan.rank else 3 * min(_LOGITS, logits)
    in_loss = 2 * state + 4 * pieces - (of_layer if plan.recompute else 0)
    # An adapter's gradients come layer by layer, and are stacked at the end.
    gradients = 4 * trained * (2 if plan.rank else 1)
    holes = tokens * (5 * mlp + 2 * width + 2 * q + 2 * kv) * plan.weight_bytes
    return Memory(weights, _OF_STATE * trained, activations, max(in_layer, in_loss), gradients, holes)


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
