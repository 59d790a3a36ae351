"""Which step several processes make."""

from typing import Any

from beautilog import logger

from train.distributed.step import DistributedStep


def build_distributed_step(trainer: Any, form: str) -> DistributedStep:
    """Make the step of several processes.

    Args:
        trainer: a BaseTrainer.
        form: what the config's `step` asks for.
    """
    count = trainer._process_group.world_size
    if form == "auto":
        logger.info(f"step = eager (auto): {count} processes train together, and compiled forms are for one")
    elif form != "eager":
        logger.warning(f"step = {form} is for one process; {count} train together, so it is eager")
    kind: type[DistributedStep] = DistributedStep
    if trainer._sharded is not None:
        from train.distributed.sharding import ShardedStep  # takes half a second

        kind = ShardedStep
    return kind(
        trainer,
        forward=trainer._forward_batch,
        update=trainer._update,
        count=lambda: trainer._loss_count,
        window=trainer.config.accumulation_steps,
        after_update=lambda: trainer._step_scheduler("step"),
        average=trainer._average,
        device=trainer.device,
        between=trainer.obey_in_validation,
    )
