"""What a run asks of its loaders: they are readied, their workers keep signals apart, faults are told by sample."""
