"""Neural networks and losses; they know nothing of training, files or config sections."""

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
