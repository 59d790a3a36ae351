"""What is wrong with a page of the docs, found without running anything: see tests/test_docs.py for what holds."""

import ast
import re
import subprocess
import textwrap
from pathlib import Path

from doc_pages import ROOT, Block, Command, anchors_of, blocks_of, options_of, prose_of

from commands.command_line import _parser
from config import ConfigError, ConfigParser
from config.config_classes import key_types
from config.ini_reader import parse_ini
from config.service_config import ServiceConfig
from train import TRAINER_REGISTRY
from train.registry import UnknownTrainerError

_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|ini|json|yaml|sbatch|sh|npz|safetensors|png|txt))(?::\d+)?`")

_NEW_PROJECT = ROOT / "commands" / "new_project" / "files"  # what `menagerie init` writes
# What `menagerie COMMAND` does with the words behind it.
_SCRIPTS = {
    "train": ["train.py"], "plot": ["plot.py"], "recommend": ["recommend.py"], "evaluate": ["-m", "evaluation"],
    "doctor": ["doctor.py"],
}  # fmt: skip


def blocks(page: str, language: str) -> list[Block]:
    """A page's blocks of a language."""
    return [block for block in blocks_of(page) if block.language == language]


def command_problems(page: str) -> list[str]:
    """What is wrong with the commands of a page."""
    commands = [command for block in blocks(page, "sh") for command in block.commands]
    return [f"{each.where}: {each.text}: {problem}" for each in commands for problem in _command_problems(page, each)]


def _command_problems(page: str, command: Command) -> list[str]:
    checked = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)
    if checked.returncode:
        return [checked.stderr.strip()]
    problems = [] if command.not_run != "(no reason)" else ["`not run` needs a reason"]
    for words in command.parts:
        if words[0] == "make":
            problems += _make_problems(words[1:])
        elif words[0] in ("sbatch", "bash", "sh"):
            problems += _script_problems(words)
        elif words[0] == "torchrun" and "train.py" in words:
            problems += _python_problems(page, ["python", *words[words.index("train.py") :]], command.settings)
        elif words[0] == "menagerie" and words[1:2] and words[1] in _SCRIPTS and not command.exit_code:
            problems += _python_problems(page, ["python", *_SCRIPTS[words[1]], *words[2:]], command.settings)
        elif words[0].endswith("python") and not command.exit_code:
            problems += _python_problems(page, ["python", *words[1:]], command.settings)
    return problems


def _make_problems(words: list[str]) -> list[str]:
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    unknown = [word for word in words if "=" not in word and word not in known]
    return [f"the Makefile has no target {word}" for word in unknown]


def _script_problems(words: list[str]) -> list[str]:
    script = next((ROOT / word for word in words[1:] if not word.startswith("-")), None)
    if script is None or not script.is_file():
        return [f"there is no script {script}"]
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    return [checked.stderr] if checked.returncode else []


def _python_problems(page: str, words: list[str], settings: tuple[str, ...]) -> list[str]:
    if words[1:2] == ["-c"] or words[1:3] == ["-m", "venv"] or words[1:3] == ["-m", "pip"]:
        return []
    if words[1:3] == ["-m", "pytest"]:
        paths = [Path(word) for word in words[3:] if word.startswith("tests/")]
        of_new = {path for path in paths if _compact(path.stem.removeprefix("test_")) in own_trainers(page)}
        return [f"there is no {path}" for path in paths if not (ROOT / path).exists() and path not in of_new]
    script, options = options_of(words)
    if script is not None and script.name == "serve.py":  # its settings are options
        options |= {f"--{key.replace('_', '-')}" for key in key_types(ServiceConfig)}
    if script is not None and script.name == "doctor.py":  # a module a command, and one for what they share
        words = words[: words.index("--")] if "--" in words else words  # behind it stands another command
        for module in (ROOT / "doctor" / "commands").glob("*.py"):
            options |= set(re.findall(r'"(--[a-z][a-z-]+)"', module.read_text(encoding="utf-8")))
    if script is not None and script.name == "tune.py":  # its words are in a module of that name
        text = (ROOT / "agents" / "commands.py").read_text(encoding="utf-8")
        options |= set(re.findall(r'"(--[a-z][a-z-]+)"', text))
    if script is None:
        return [] if words[1:2] and words[1] in _written(page) else [f"there is no such script: {' '.join(words[:3])}"]
    given = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    problems = [f"{script.name} has no option {word}" for word in given if word != "-m" and word not in options]
    return problems or (_trainer_problems(page, words[2:], settings) if script.name == "train.py" else [])


def _trainer_problems(page: str, words: list[str], added: tuple[str, ...]) -> list[str]:
    try:
        arguments = _parser().parse_intermixed_args(words)
    except SystemExit:
        return ["train.py's parser refuses it"]
    name = arguments.trainer
    if not name or "=" in name or name in ("NAME", *own_trainers(page)):
        return []
    try:
        for settings in (arguments.settings, added):
            ConfigParser.use(None, settings, TRAINER_REGISTRY.entry(name).section)
            ConfigParser.check()
    except (UnknownTrainerError, ConfigError) as error:
        return [str(error)]
    finally:
        ConfigParser.reset()
    return []


def _written(page: str) -> dict[str, Block]:
    """Files that a page, or README.md before it, has its reader write."""
    found = {}
    for each in dict.fromkeys(["README.md", page]):
        found |= {note.text: block for block in blocks_of(each) if (note := block.note("file"))}
    return found


def own_trainers(page: str) -> set[str]:
    """Names of trainers that a page has its reader write, by hand or with --new."""
    names = {
        name
        for block in _written(page).values()
        for name in re.findall(r"^class (\w+)Trainer\(BaseTrainer", block.text, re.M)
    }
    texts = [command.text for block in blocks(page, "sh") for command in block.commands]
    names |= {name.removesuffix("Trainer") for text in texts for name in re.findall(r"--new (\w+)", text)}
    return names | {f"{name}Trainer" for name in names} | {_compact(name) for name in names}


def _compact(name: str) -> str:
    return name.replace("_", "").lower().removesuffix("trainer")


def code_problems(page: str) -> list[str]:
    """What is wrong with the blocks of a page that are no commands."""
    problems = []
    for block in blocks_of(page):
        if block.language == "python":
            problems += _compile_problem(block)
        elif block.language == "ini":
            problems += _ini_problems(page, block)
        elif not block.language and re.search(r"^(python|make|sbatch|\$ )\S* ", block.text, flags=re.MULTILINE):
            problems += [f"{block.where}: this looks like commands: write ```sh"]
    return problems


def _compile_problem(block: Block) -> list[str]:
    try:
        ast.parse(textwrap.dedent(block.text))
    except SyntaxError as error:
        return [f"{block.page}:{block.line - 1 + (error.lineno or 1)}: {error.msg}"]
    return []


def _ini_problems(page: str, block: Block) -> list[str]:
    ini = parse_ini(block.text.encode())
    problems = [f"{block.page}:{block.line - 1 + line}: [{section}] {text}" for line, section, text in ini.problems]
    own = own_trainers(page)
    unknown = [name for name in ini.sections if name not in ConfigParser.sections() and name not in own]
    problems += [f"{block.where}: there is no section [{name}]" for name in unknown]
    for entry in ini.entries:
        if entry.section in ConfigParser.sections():
            ConfigParser.use(None, [f"{entry.key}={entry.text}"], entry.section)
            try:
                ConfigParser.check()
            except ConfigError as error:
                problems.append(f"{block.page}:{block.line - 1 + entry.line}: {error}")
            finally:
                ConfigParser.reset()
    return problems


def link_problems(page: str) -> list[str]:
    """Which links, and which files named in backticks, lead nowhere."""
    folder, problems = (ROOT / page).parent, []
    for number, line in prose_of(page):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"\w+:", target):
                continue  # elsewhere on the network
            path, _, anchor = target.partition("#")
            place = (folder / path).resolve() if path else ROOT / page
            if not place.exists():
                problems.append(f"{page}:{number}: there is no {target}")
            elif anchor and anchor not in anchors_of(str(place)):
                problems.append(f"{page}:{number}: {path or 'the page'} has no heading #{anchor}")
        for path in _PATH.findall(line):
            top = path.partition("/")[0]  # other folders are made by runs and users
            made_later = not (ROOT / top).is_dir() or top == "artifacts"
            there = (ROOT / path).exists() or (_NEW_PROJECT / path).exists()
            if not made_later and not there and path not in _written(page):
                problems.append(f"{page}:{number}: there is no file {path}")
    return problems
