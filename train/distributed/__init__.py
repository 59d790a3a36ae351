"""One model, several processes: see docs/clusters.md.

`world.py` knows the processes and what they tell one another; it is free where there is only one. `step.py` is the
optimizer step of several, over torch's DistributedDataParallel; `parts.py` is what each process has of its own in a
checkpoint. `sharding.py` spreads a model's weights over the processes, and `shard_files.py` writes and reads them. Data
is parted in `data/shares.py`.
"""

from typing import Any

from train.distributed.world import World, joined_world, world

__all__ = ["World", "joined_world", "sharded_hook", "world"]


def sharded_hook(trainer: Any) -> Any:
    """Shard a trainer where its config asks for it; else, and with one process, return None."""
    if trainer._world.alone or trainer.config.strategy != "fsdp2":
        return None
    from train.distributed.sharding import shard  # takes half a second

    return shard(trainer)
