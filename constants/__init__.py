"""Names, paths and tables that every package shares. Imports nothing but the standard library."""

import os
import sys

from constants.paths import (
    ARTIFACTS_DIR,
    BEAUTILOG_PATH,
    CONFIG_PATH,
    DATA_DIR,
    FOUND_PROJECT,
    IS_CHECKOUT,
    PACKAGE_ROOT,
    PERFORMANCE_PATH,
    PROJECT_ROOT,
    ZOO_DIR,
    add_own_modules,
)
from constants.program import command
from constants.version import VERSION

# beautilog writes `beautilog.ini` and a log file into the current folder unless this names a file.
# Every package of ours imports `constants` first, so this is the one place that runs before it.
os.environ.setdefault("BEAUTILOG_CONFIG_PATH", str(BEAUTILOG_PATH))

# Modules in other folders of the project, last: they never hide an installed package.
if FOUND_PROJECT and str(FOUND_PROJECT) not in sys.path:
    sys.path.append(str(FOUND_PROJECT))

__all__ = [
    "ARTIFACTS_DIR",
    "BEAUTILOG_PATH",
    "CONFIG_PATH",
    "DATA_DIR",
    "FOUND_PROJECT",
    "IS_CHECKOUT",
    "PACKAGE_ROOT",
    "PERFORMANCE_PATH",
    "PROJECT_ROOT",
    "VERSION",
    "ZOO_DIR",
    "add_own_modules",
    "command",
]
