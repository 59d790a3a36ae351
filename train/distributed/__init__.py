"""One model, several processes: see docs/clusters.md.

`world.py` knows the processes and what they tell one another; it is free where there is only one. `step.py` is the
optimizer step of several, over torch's DistributedDataParallel; `parts.py` is what each process has of its own in a
checkpoint. Data is parted in `data/shares.py`.
"""

from train.distributed.world import World, asked_size, joined_world, world

__all__ = ["World", "asked_size", "joined_world", "world"]
