"""Rules of the house that a reader cannot see by looking at one file: docs/architecture.md has them as a picture."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from longest_files import LONGEST

ROOT = Path(__file__).resolve().parent.parent
# What each package may import of ours, in functions too.
ALLOWED = {
    "constants": set(),
    "storage": {"constants"},
    "config": {"constants"},
    "model": {"constants"},
    "doctor": {"constants"},
    "data": {"constants", "config", "model", "storage"},
    "evaluation": {"constants", "config", "data", "model", "storage"},
    "llm": {"constants", "config", "data", "model", "storage"},
    "service": {"constants", "config", "data", "llm", "model", "storage"},
    "train": {"constants", "config", "data", "model", "storage", "evaluation", "llm", "service"},
    "workflow": {"constants", "config", "data", "doctor", "service", "storage"},
    "agents": {"constants", "config", "data", "doctor", "evaluation", "service", "storage", "workflow"},
    "commands": {"constants", "config", "data", "model", "storage", "evaluation", "llm", "train"},
}
SCRIPTS = ("train.py", "menagerie.py", "plot.py", "recommend.py", "serve.py", "doctor.py", "workflow.py", "tune.py")
NEW_PROJECT = ROOT / "commands" / "new_project" / "files"  # of a project to come, beside the packages
TEMPLATES = ROOT / "workflow" / "templates"  # and of workflows to come
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))
         if not path.is_relative_to(NEW_PROJECT) and not path.is_relative_to(TEMPLATES)]  # fmt: skip
# Files of train/ that the parts of a run are made without: they may not know a trainer's underscores.
TRAINING = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("train", "commands", "storage")]
BASE_TRAINER = ROOT / "train" / "base_trainer.py"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def of_each(files: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make a test of the check of a file, which names all files that fail: a test for each file would cost far more."""

    def made(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for path in files:
                try:
                    check(path)
                except AssertionError as error:
                    text = str(error).splitlines()[0]
                    wrong.append(text if shown(path) in text else f"{shown(path)}: {text}")
            assert not wrong, "\n".join(wrong)

        return test

    return made


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    return {module_of(path): path for path in FILES}


@cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the modules of ours that a file imports anywhere in it, with the lines."""
    for node in nodes_of(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inside]
        for name in dict.fromkeys(names):
            if name.split(".")[0] in ALLOWED or name in {script.removesuffix(".py") for script in SCRIPTS}:
                yield name, node.lineno


@of_each(FILES)
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for name, line in imports_of(path):
        other = name.split(".")[0]
        assert other == package or other in ALLOWED[package], f"{shown(path)}:{line} imports {name}"


def test_only_the_trainer_of_agents_serves():
    """The service knows no trainer, and of the trainers only that of agents knows the service."""
    for path in FILES:
        place = path.relative_to(ROOT)
        if place.parts[0] == "train" and any(name.split(".")[0] == "service" for name, _ in imports_of(path)):
            assert place == Path("train/agent_trainer.py") or place.parts[1] == "agents", f"{place} imports service"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin(script):
    tree = ast.parse((ROOT / script).read_text())
    assert len(tree.body) <= 5, f"{script} has logic of its own"
    package = (
        "commands" if script == "menagerie.py" else "constants"
    )  # by which the others call commands/ or evaluation/
    assert {name.split(".")[0] for name, _ in imports_of(ROOT / script)} == {package}


def circle_in(graph: dict[str, dict[str, str]]) -> list[str]:
    """Return a circle of a graph, each arrow with where it is; empty where there is none."""
    done: set[str] = set()

    def follow(node: str, path: list[str]) -> list[str]:
        if node in path:
            around = [*path[path.index(node) :], node]
            return [f"{a} -> {b} ({graph[a][b]})" for a, b in pairwise(around)]
        if node in done:
            return []
        for other in graph.get(node, {}):
            found = follow(other, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    return next((found for node in graph if (found := follow(node, []))), [])


def test_no_circle_of_files():
    graph: dict[str, dict[str, str]] = {}
    for path in FILES:
        for name, line in imports_of(path):
            if name in modules() and name != module_of(path):
                graph.setdefault(module_of(path), {})[name] = f"{shown(path)}:{line}"
    assert not circle_in(graph)
    graph["storage.files"] = {"train.base_trainer": "made up"}
    assert circle_in(graph), "the search finds one"


def test_no_circle_of_rooms():
    """Rooms beside one another: packages, and the folders of one package."""
    graphs: dict[str, dict[str, dict[str, str]]] = {}
    for path in FILES:
        for name, line in imports_of(path):
            here, there = (modules()[module].relative_to(ROOT).parts[:-1] for module in (module_of(path), name)
                           if module in modules())  # fmt: skip
            level = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
            if level is not None:
                graph = graphs.setdefault("/".join(here[:level]), {})
                graph.setdefault(here[level], {})[there[level]] = f"{shown(path)}:{line}"
    assert {"", "train"} <= graphs.keys()
    for graph in graphs.values():
        assert not circle_in(graph)


@of_each(TRAINING)
def test_parts_take_what_they_use(path):
    """No part reaches into a trainer, and none takes one without saying so."""
    text = path.read_text()
    untyped = re.findall(r"\btrainer\w*: Any\b|\brun: Any\b", text)
    assert not untyped, f"{shown(path)}: {untyped}"
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and path != BASE_TRAINER:
            owner = ast.unparse(node.value).split(".")[-1]
            assert not re.fullmatch(r"\w*trainer|run|\w+_run|run_context", owner), (
                f"{shown(path)}:{node.lineno} reads {ast.unparse(node)}"
            )


@of_each(FILES)
def test_paths_in_strings_exist(path):
    """Modules and files of ours that a string or a comment names, in code that no import checks."""
    if "scaffold" in path.parts or path.name == "doc_pages.py":
        return  # templates name files of trainers to come
    packages = "|".join(ALLOWED)
    text = path.read_text()
    for found in re.finditer(rf"(?<![\w/.])((?:{packages})/[\w/]+(?:\.py|/(?=[\s,.;:)\"'`]))?)(?![\w/*<{{])", text):
        name = found[1]
        known = (ROOT / name).exists() or (ROOT / f"{name}.py").exists() or _is_made_up(name)
        assert known, f"{shown(path)} names {name}, which is not there"
    for found in re.finditer(rf"[\"'`]((?:{packages})(?:\.[a-z_]+)+)(?=[:\"'`])", text):
        name = found[1]
        known = name in modules() or name.rpartition(".")[0] in modules() or name.split(".")[0] + ".py" == name
        assert known or (ROOT / name).exists() or _is_made_up(name), f"{shown(path)} names {name}, which is not there"


def _is_made_up(name: str) -> bool:
    """Whether a name stands for a user's own file, for one that a command writes, or for a decoder's weights."""
    return bool(re.search(r"my_|data/zoo/|train/loss|train/x_|^model\.(embed_tokens|layers|norm|safetensors)", name))


@of_each(FILES)
def test_commands_are_named_as_their_user_calls_them(path):
    """`python train.py` in a checkout is `menagerie train` in a project of one's own: `constants.command` knows."""
    with_docs = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {id(node.body[0].value) for node in nodes_of(path) if isinstance(node, with_docs)
            if node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    docs |= {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Assign)
             if isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_EXAMPLES"}  # fmt: skip
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            named = re.search(r"python (train|plot|recommend)\.py\b.", node.value)
            assert not named, (
                f"{shown(path)}:{node.lineno}: write {{command('{named and named[1]}')}} (constants.command)"
            )


@of_each(FILES)
def test_library_code_logs_and_never_prints_or_unpickles(path):
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            called = ast.unparse(node.func) if name in ("print", "load", "loads") else ""
            options = {f"{key.arg}={ast.unparse(key.value)}" for key in node.keywords
                       if key.arg in ("allow_pickle", "weights_only")}  # fmt: skip
            if path.name == "weights_file.py" and "weights_only=True" in options:
                continue  # files of others, which hold tensors: the one place where they are read
            assert called != "print" and called not in ("torch.load", "pickle.load", "pickle.loads"), f"{node.lineno}"
            assert not options & {"allow_pickle=True", "weights_only=False"}, f"line {node.lineno}"


def test_files_of_tests_have_different_names():
    """Two of one name can't be collected together."""
    names = Counter(path.name for path in (ROOT / "tests").glob("**/*test_*.py"))
    assert not [name for name, times in names.items() if times > 1]


@pytest.mark.parametrize("package", ALLOWED)
def test_tests_mirror_the_tree(package):
    """Each package with tests of its own has them in a folder of its name."""
    if package != "constants":
        assert list((ROOT / "tests" / package).glob("test_*.py")), f"tests/{package} has no tests"


def test_the_files_that_take_longest_are_there():
    """The tests begin with these, by name."""
    for name in LONGEST:
        assert list((ROOT / "tests").glob(f"*/{name}.py")), f"tests/longest_files.py has {name}"
