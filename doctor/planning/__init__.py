"""Sets of versions that are known to work together, for a goal on given hardware."""
