"""Ranking metrics, probes, and readers and plots of saved runs."""

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
