"""The steps between a decoder's matrix products, each keeping for backward only what can't be made again cheaply.

Without gradients, as in sampling, each is as few calls as it can be: at one token a row, calls are what costs.
"""

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `weight * x / sqrt(mean(x^2) + eps)`, over the last dimension.

    Args:
        states: (..., width).
        weight: (width,).
        eps: added to the mean square.

    Returns:
        (..., width) in the dtype of `states`, computed in fp32.
    """
    if not torch.is_grad_enabled() and states.dtype == torch.float32:
        return functional.rms_norm(states, weight.shape, weight, eps)
    return RmsNorm.apply(states, weight, eps)


def turn(queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys turned by rotary positions.

    Args:
        queries: (T, heads, head_dim).
        keys: (T, kv_heads, head_dim).
        cosines: (T, 1, head_dim / 2), of each token's angles.
        sines: (T, 1, head_dim / 2).

    Returns:
        Both, in their sizes.
    """
    if torch.is_grad_enabled():
        return Turned.apply(queries, cosines, sines), Turned.apply(keys, cosines, sines)
    heads = queries.shape[1]
    turned = _turn(torch.cat([queries, keys], dim=1), cosines, sines, 1.0)
    return turned[:, :heads], turned[:, heads:]


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up` (T, mlp_width) of two tensors of these sizes."""
    return Gated.apply(gate, up) if torch.is_grad_enabled() else functional.silu(gate).mul_(up)


class RmsNorm(torch.autograd.Function):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last dimension, computed in fp32; keeps x and one number a row."""

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Norm states (..., width) by weight (width,)."""
        exact = states.float()
        inverse = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square_().div_(exact.shape[-1])
        inverse.add_(eps).rsqrt_()
        ctx.save_for_backward(states, weight, inverse)
        return (exact * inverse).to(states.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of states and, where it is trained, of the weight."""
        states, weight, inverse = ctx.saved_tensors
        normed = states.float() * inverse
        given = gradient.float()
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (given * normed).flatten(0, -2).sum(0).to(weight.dtype)
        inner = given * weight.float()
        share = torch.linalg.vecdot(inner, normed).unsqueeze(-1).div_(-states.shape[-1])
        return inner.addcmul_(normed, share).mul_(inverse).to(states.dtype), of_weight, None


class Turned(torch.autograd.Function):
    """Rotary positions: the two halves of each head are turned by the token's angles. Backward turns them back."""

    @staticmethod
    def forward(ctx, heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Turn heads (T, heads, head_dim) by the angles (T, 1, head_dim / 2)."""
        ctx.save_for_backward(cosines, sines)
        return _turn(heads, cosines, sines, 1.0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of heads."""
        return _turn(gradient, *ctx.saved_tensors, -1.0), None, None


def _turn(heads: Tensor, cosines: Tensor, sines: Tensor, direction: float) -> Tensor:
    turned = torch.empty(heads.shape, dtype=heads.dtype, device=heads.device)
    first, second = heads.chunk(2, dim=-1)
    into_first, into_second = turned.chunk(2, dim=-1)
    torch.mul(first, cosines, out=into_first).addcmul_(second, sines, value=-direction)
    torch.mul(second, cosines, out=into_second).addcmul_(first, sines, value=direction)
    return turned


class Gated(torch.autograd.Function):
    """`silu(gate) * up`."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        """Multiply up (T, mlp_width) by its gate."""
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of gate and up."""
        gate, up = ctx.saved_tensors
        open_share = torch.sigmoid(gate)
        opened = gate * open_share
        of_up = gradient * opened
        # silu'(g) = s + g s (1 - s) = s + opened - opened s
        slope = torch.addcmul(open_share, opened, open_share, value=-1).add_(opened)
        return slope.mul_(up).mul_(gradient), of_up
