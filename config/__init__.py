"""Settings: `ConfigParser.get(SomeConfig)` reads, checks and types what config.ini and the command line say."""

import constants  # isort: skip  # noqa: F401 - first: it keeps beautilog from writing into the current folder

from config.base_trainer_config import BaseTrainerConfig
from config.config_error import ConfigError
from config.config_parser import ConfigParser

__all__ = ["BaseTrainerConfig", "ConfigError", "ConfigParser"]
