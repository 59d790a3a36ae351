"""The loss of sampled tokens: by how much their log-probabilities count, and what that is divided by."""

from collections.abc import Sequence

from torch import Tensor

from data.policy_batches import PolicyBatch
from model.token_losses import require_loss, token_loss


class PolicyLoss:
    """A loss by its name.

    Args:
        loss: `importance_sampling`, `ppo` or `cispo`; see model/token_losses.py.
        clip: lowest and highest ratio that ppo and cispo don't clip; empty for the loss's own.

    Raises:
        ValueError: `clip` is not for this loss, or no range.
    """

    def __init__(self, loss: str, clip: Sequence[float] = ()) -> None:
        given = f"clip = {', '.join(map(str, clip))}"
        if clip and loss == "importance_sampling":
            raise ValueError(f"{given}: clip is for loss = ppo and loss = cispo, and loss = {loss} clips nothing")
        if clip and len(clip) != 2:
            raise ValueError(f"{given}: give two numbers, the lowest and the highest ratio, such as 0.8, 1.2")
        self.loss = loss
        self.settings = require_loss(
            loss, {"clip_low_threshold": clip[0], "clip_high_threshold": clip[1]} if clip else None
        )

    def __call__(self, batch: PolicyBatch, logprobs: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            batch: the batch, with something to learn.
            logprobs: (N,) float32 log-probabilities of its targets now.

        Returns:
            A scalar: the sum over the targets, divided by the batch's total weight.
        """
        to = logprobs.device
        inputs = {"logprobs": batch.old_logprobs.to(to), "advantages": batch.advantages.to(to)}
        return token_loss(self.loss, logprobs, inputs, self.settings) / batch.total_weight
