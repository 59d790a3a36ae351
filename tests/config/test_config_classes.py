"""Finding the config classes of a tree, and staying light while at it. Each test runs a copy of the packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from constants import PROJECT_ROOT

PROGRAM = """
import sys
from pathlib import Path
from config import ConfigError, ConfigParser
ConfigParser.use(Path("config.ini"), section=sys.argv[1] if sys.argv[1:] else None)
try:
    ConfigParser.check()
    print(*ConfigParser.sections())
except ConfigError as error:
    print(error)
print("heavy:", *sorted({"torch", "numpy", "beautilog"} & set(sys.modules)))
"""
GOOD = """
from dataclasses import dataclass
from config.base_trainer_config import BaseTrainerConfig
@dataclass(kw_only=True)
class NewTrainerConfig(BaseTrainerConfig):
    width: int
class HelperConfig: pass
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of config/ and constants/ that knows [BaseTrainer] only."""
    for package in ("config", "constants"):
        shutil.copytree(PROJECT_ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "config").glob("*_config.py"):
        if path.name != "base_trainer_config.py":
            path.unlink()
    (tmp_path / "config.ini").write_text("[NewTrainer]\nwidth = 3\n")
    return tmp_path


def run(tree: Path, program: str = PROGRAM, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_config_module_is_found(tree: Path) -> None:
    (tree / "config" / "new_trainer_config.py").write_text(GOOD)
    assert run(tree) == ["BaseTrainer NewTrainer", "heavy:"]


def test_module_added_later_is_found_in_the_same_process(tree: Path) -> None:
    program = f"""
from pathlib import Path
from config import ConfigParser
before = list(ConfigParser.sections())
Path("config/new_trainer_config.py").write_text({GOOD!r})
print(*before, "|", *ConfigParser.sections())
"""
    assert run(tree, program) == ["BaseTrainer | BaseTrainer NewTrainer"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\nimport no_such_module\n", ":2 cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\ny = = 2\n", ":2 cannot be imported: SyntaxError: invalid syntax (broken_config.py, line 2)"),
        ("def f():\n    return 1 / 0\n\nf()\n", ":2 cannot be imported: ZeroDivisionError: division by zero"),
        (
            "from config.base_trainer_config import BaseTrainerConfig\n"
            "class BrokenConfig(BaseTrainerConfig):\n    width: int = 3\n",
            ": BrokenConfig is not a dataclass: put @dataclass above the class",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass BrokenConfig:\n    width: 'Nowhere' = 3\n",
            ": BrokenConfig has a type hint that cannot be read: NameError: name 'Nowhere' is not defined",
        ),
    ],
)
def test_broken_module_is_named_with_the_reason(tree: Path, source: str, message: str) -> None:
    (tree / "config" / "new_trainer_config.py").write_text(GOOD)
    (tree / "config" / "broken_config.py").write_text(source)
    (tree / "config.ini").write_text("[NewTrainer]\nwidth = x\n")
    assert run(tree) == [
        f"config/broken_config.py{message}",
        "config.ini:2 [NewTrainer] width = 'x': must be an integer",
        "heavy:",
    ]


def test_malformed_class_does_not_hide_the_other_problems(tree: Path) -> None:
    (tree / "config" / "odd_config.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass OddConfig:\n    width: 'Nowhere' = 3\n"
    )
    (tree / "config.ini").write_text("[Odd]\nwidth = 3\n[BaseTrainer]\nepochs = 0\n")
    for section in ("Odd", "BaseTrainer"):
        assert run(tree, PROGRAM, section) == [
            "config/odd_config.py: OddConfig has a type hint that cannot be read: "
            "NameError: name 'Nowhere' is not defined",
            "config.ini:4 [BaseTrainer] epochs = '0': must be an integer greater than 0",
            "heavy:",
        ]


def test_two_classes_of_one_section(tree: Path) -> None:
    for name in ("new_trainer", "newer_trainer"):
        (tree / "config" / f"{name}_config.py").write_text(GOOD)
    assert run(tree)[0] == (
        "config/newer_trainer_config.py: NewTrainerConfig is defined in config/new_trainer_config.py too; "
        "rename one of them"
    )


def test_importing_config_imports_nothing_heavy() -> None:
    program = (
        "import sys, config\nfrom config import BaseTrainerConfig, ConfigParser\n"
        "ConfigParser.describe(BaseTrainerConfig)\n"
        "print(*sorted({'pydantic', 'torch', 'numpy', 'beautilog', 'configparser'} & set(sys.modules)))"
    )
    assert run(PROJECT_ROOT, program) == [""]


def test_project_config_classes_do_not_import_torch() -> None:
    program = "import sys\nfrom config import ConfigParser\nConfigParser.sections()\nprint('torch' in sys.modules)"
    assert run(PROJECT_ROOT, program) == ["False"]
