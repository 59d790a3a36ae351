"""One model, several processes: see docs/clusters.md.

train/process_group.py knows the processes and what they tell one another; it is free where there is only one. `step.py`
is the optimizer step of several, over torch's DistributedDataParallel, and `build.py` picks it. `sharding.py` spreads a
model's weights over the processes, and `shard_files.py` writes and reads them. Data is parted in `data/shares.py`.
"""

from typing import Any


def sharded_hook(trainer: Any) -> Any:
    """Shard a trainer where its config asks for it; else, and with one process, return None."""
    if trainer._process_group.is_single_process or trainer.config.strategy != "fsdp2":
        return None
    from train.distributed.sharding import shard  # takes half a second

    return shard(trainer)
