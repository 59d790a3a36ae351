"""Where things are: the program's own files, and the project of whoever uses it.

In a checkout both are one folder: `python train.py` is a command of the checkout, wherever it is called. `menagerie`,
and Python code that imports an installed Menagerie (a notebook, pytest, a worker of a loader), take the project that
the current folder lies in: the nearest folder upwards with a config.ini.
"""

import sys
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
"""Folder of the packages: a checkout, or site-packages."""
IS_CHECKOUT = (PACKAGE_ROOT / "train.py").is_file()
"""Whether the packages lie in a checkout, which is a project too."""
SHARED_ROOMS = ("config", "data", "evaluation", "model", "train")
"""Packages that a project adds modules of its own to, from its folders of the same names."""


def find_project() -> Path | None:
    """Find the project that this process works in.

    Returns:
        The folder that holds config.ini, artifacts/ and the trainers; None where there is none.
    """
    script = Path(sys.argv[0] if sys.argv else "")
    try:
        script, here = script.resolve(), Path.cwd()
    except OSError:  # the current folder is gone
        return PACKAGE_ROOT if IS_CHECKOUT else None
    if IS_CHECKOUT and script.parent == PACKAGE_ROOT and script.stem != "menagerie":
        return PACKAGE_ROOT
    nearest = next((folder for folder in (here, *here.parents) if (folder / "config.ini").is_file()), None)
    return nearest.resolve() if nearest else PACKAGE_ROOT if IS_CHECKOUT else None


FOUND_PROJECT = find_project()
"""The project's folder; None where the current folder lies in none."""
PROJECT_ROOT = FOUND_PROJECT or Path.cwd()
CONFIG_PATH = PROJECT_ROOT / "config.ini"
ARTIFACTS_DIR = PROJECT_ROOT / "artifacts"
BEAUTILOG_PATH = (PACKAGE_ROOT if IS_CHECKOUT else PACKAGE_ROOT / "constants") / "beautilog.ini"
DATA_DIR = PACKAGE_ROOT / "data"
ZOO_DIR = DATA_DIR / "zoo"
PERFORMANCE_PATH = PACKAGE_ROOT / "constants" / "dataset_model_performance.json"


def add_own_modules(package_path: list[str], name: str) -> None:
    """Let a package have the modules of the project's folder of the same name too.

    The package's own come first. So `train.base_trainer` is the program's and `train.digits_trainer` the project's.

    Args:
        package_path: `__path__` of the package; the folder is added to it.
        name: `__name__` of the package.
    """
    own = str(PROJECT_ROOT.joinpath(*name.split(".")))
    if PROJECT_ROOT != PACKAGE_ROOT and own not in package_path:
        package_path.append(own)
