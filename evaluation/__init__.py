"""Ranking metrics, probes, and readers and plots of saved runs."""

from constants import add_own_modules  # first: it tells beautilog where its settings are

add_own_modules(__path__, __name__)
