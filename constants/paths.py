"""Where things are, from the project's root."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
CONFIG_PATH = PROJECT_ROOT / "config.ini"
BEAUTILOG_PATH = PROJECT_ROOT / "beautilog.ini"
ARTIFACTS_DIR = PROJECT_ROOT / "artifacts"
DATA_DIR = PROJECT_ROOT / "data"
ZOO_DIR = DATA_DIR / "zoo"
PERFORMANCE_PATH = PROJECT_ROOT / "constants" / "dataset_model_performance.json"
