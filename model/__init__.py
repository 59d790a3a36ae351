"""Neural networks and losses; they know nothing of training, files or config sections."""

from constants import add_own_modules  # first: it tells beautilog where its settings are

add_own_modules(__path__, __name__)
