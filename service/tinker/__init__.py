"""Tinker's protocol: sessions, models, training, samples, checkpoints, promises; and the start after a kill."""
