"""Agents that fine-tune a model with a person in the loop: `python tune.py` (docs/tuning.md)."""
