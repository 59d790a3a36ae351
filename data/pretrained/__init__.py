"""Pretrained image models of others: manifests that name them, how they are fed, what they say, what they cost."""
