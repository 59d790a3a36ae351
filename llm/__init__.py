"""Language models below the trainers: base models and adapters on disk, sampling, the engine."""

import constants as constants  # first: it tells beautilog where its settings are
from data.pretrained.torchvision_operators import declare_when_imported

declare_when_imported()  # transformers imports torchvision where it is installed
