"""Rules of the house that a reader cannot see by looking at one file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What each package may import of ours. It goes one way: train -> (data, model, evaluation) -> config -> constants.
ALLOWED = {
    "constants": {"constants"},
    "config": {"constants", "config"},
    "model": {"constants", "model"},
    "data": {"constants", "config", "data", "model", "storage"},
    "storage": {"constants", "storage"},
    "evaluation": {"constants", "config", "data", "model", "storage", "evaluation"},
    "train": {"constants", "config", "data", "model", "storage", "evaluation", "train"},
    "commands": {"constants", "config", "data", "model", "storage", "evaluation", "train", "commands"},
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        ours = {name.split(".")[0] for name in names} & (ALLOWED.keys() | {"plot", "recommend"})
        assert ours <= ALLOWED[package], f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_code_logs_and_never_prints_or_unpickles(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print" and called not in ("torch.load", "pickle.load", "pickle.loads"), f"{node.lineno}"
            options = {f"{key.arg}={ast.unparse(key.value)}" for key in node.keywords}
            assert not options & {"allow_pickle=True", "weights_only=False"}, f"line {node.lineno}"
