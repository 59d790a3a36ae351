"""One model, several processes: see docs/clusters.md.

train/process_group.py knows the processes and what they tell one another; it is free where there is only one. `step.py`
is the optimizer step of several, over torch's DistributedDataParallel, with the trainer's loss as a module
(`loss_module.py`). `sharding.py` spreads a model's weights over the processes, `shard_files.py` writes and reads them.
Data is parted in data/sharding.py.
"""
