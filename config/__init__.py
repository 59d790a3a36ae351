"""Settings: `ConfigParser.get(SomeConfig)` reads, checks and types what config.ini and the command line say."""

from constants import add_own_modules  # isort: skip - first: it keeps beautilog from writing into the current folder

from config.base_trainer_config import BaseTrainerConfig
from config.config_error import ConfigError
from config.config_parser import ConfigParser

add_own_modules(__path__, __name__)

__all__ = ["BaseTrainerConfig", "ConfigError", "ConfigParser"]
