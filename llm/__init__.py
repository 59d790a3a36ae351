"""Language models below the trainers: base models and adapters on disk, sampling, the engine."""

import constants as constants  # first: it tells beautilog where its settings are
