"""Datasets, loaders, and the zoo that comes with the program."""

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
