"""README.md and docs/*.md keep their word: what they show is read, checked and run, page by page and in order.

A page's fenced blocks are what a reader may copy. Their language says what they are:

- ```sh      commands, one a line (`\\` at the end goes on; `# ...` is a comment). `make test` checks scripts, options,
             trainers and settings; `make test-all` runs each in a new process, in a copy of the project as users have
             it, one copy for each page, which has README's own trainer (`Digits`) too.
- ```python  is compiled, and run where `<!-- run -->` stands before it.
- ```ini     is read by the project's parser; keys and values of known sections are checked.
- no language, or another: output, which nobody checks. It may not look like commands.

HTML comments on the lines right before a block say what a test must know (a reader does not see them):

- `<!-- exit 2 -->`                  its commands end with this code instead of 0
- `<!-- test: epochs=1 -->`          words added to its `python train.py TRAINER` commands, so that they are short;
                                     a key that the command has already gets this value
- `<!-- not run: needs SLURM -->`    checked, but not run. `make`, `sbatch`, `pip`, `git` and `docker` never are, and
                                     need no such comment
- `<!-- file: train/x_trainer.py -->`  the block is this file: it is written into the page's copy of the project
- `<!-- append: config.ini -->`      the block is added to the end of this file
- `<!-- run -->`                     a ```python block is run as a script in the page's copy

`exit`, `test` and `not run` may be for some commands alone, those that contain a text:
`<!-- exit [--replay] 2: no run has failed -->`, `<!-- not run [ModelZoo]: takes a minute -->`.

In commands RUN (or a run's id, such as 20261121-161716) stands for a run: the newest one, and the one before it where
two are named; runs that the page has not made are made before. NAME stands for a trainer. Where a command reads
`my_images/` or `photos/` (a folder for each class), `results.csv` (model,dataset,metric,value) or `other.ini`, it is
there. Links and paths of files in `backticks` must lead somewhere.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doc_pages import PAGES, ROOT, Block, Command, anchors_of, blocks_of, options_of, prose_of
from warm_python import run_python

from config import ConfigError, ConfigParser
from config.ini_reader import parse_ini
from train import TRAINER_REGISTRY
from train.command_line import _parser
from train.registry import UnknownTrainerError

_RUN_ID = re.compile(r"\b(?:RUN|\d{8}-\d{6}(?:-\d+)?)\b")
_TRAINER_FOR_NAME = "Digits"
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|ini|json|yaml|sbatch|sh|npz|safetensors|png|txt))(?::\d+)?`")
# Folders that a run or a user makes, so that what a page says of them is not in the project.
_MADE_LATER = ("artifacts/", "runs/", "checkpoints/", "plots/", "failure/", "path/")


def blocks(page: str, language: str) -> list[Block]:
    """A page's blocks of a language."""
    return [block for block in blocks_of(page) if block.language == language]


# ---- what can be checked without running -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_known(page):
    problems = [*command_problems(page), *code_problems(page), *link_problems(page)]
    assert not problems, "\n".join(problems)


def test_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text()
    assert [page for page in PAGES[1:] if f"]({page}" not in text] == []


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
        of_new = {path for path in paths if _compact(path.stem.removeprefix("test_")) in _own_trainers(page)}
        return [f"there is no {path}" for path in paths if not (ROOT / path).exists() and path not in of_new]
    script, options = options_of(words)
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
    if not name or "=" in name or name in ("NAME", *_own_trainers(page)):
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


def _own_trainers(page: str) -> set[str]:
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
    own = _own_trainers(page)
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
            if not path.startswith(_MADE_LATER) and not (ROOT / path).exists() and path not in _written(page):
                problems.append(f"{page}:{number}: there is no file {path}")
    return problems


BAD_PAGE = """# A bad page

[here](nowhere.md) and [there](#no-such-heading), [fine](#a-bad-page), `train/nothing.py`, `train/registry.py:31`

```sh
python nothing.py
python train.py ModelAutoEncoder --bogus && python train.py --list
python train.py ModelAutoEncodr   # a comment with a 'quote
python train.py ModelAutoEncoder \\
  epohcs=3
make nothing
make train
sbatch nothing.sbatch
for name in
```

<!-- not run -->
```sh
python -m evaluation --tabel results.csv
```

```python
def forward(self):
    return (
```

```ini
[ModelAutoEncoderTrainer]
epochs = many
[NoSuchTrainer]
epochs = 1
```

```
python train.py ModelAutoEncoder
```
"""


def test_what_is_wrong_is_told_with_its_line(tmp_path):
    page = str(tmp_path / "bad.md")
    Path(page).write_text(BAD_PAGE)
    told = [*command_problems(page), *code_problems(page), *link_problems(page)]
    wanted = [
        ":6: python nothing.py: there is no such script: python nothing.py",
        ":7: python train.py ModelAutoEncoder --bogus && python train.py --list: train.py has no option --bogus",
        ":8: python train.py ModelAutoEncodr: unknown trainer 'ModelAutoEncodr'; did you mean ModelAutoEncoderTrainer ",
        ":9: python train.py ModelAutoEncoder   epohcs=3: command line: unknown key 'epohcs'; did you mean 'epochs'?",
        ":11: make nothing: the Makefile has no target nothing",
        ":13: sbatch nothing.sbatch: there is no script",
        ":14: for name in: bash: -c: line 2: syntax error",
        ":19: python -m evaluation --tabel results.csv: `not run` needs a reason",
        ":19: python -m evaluation --tabel results.csv: __main__.py has no option --tabel",
        ":24: '(' was never closed",
        ":28: there is no section [NoSuchTrainer]",
        ":29: command line: epochs = 'many': must be an integer",
        ":35: this looks like commands: write ```sh",
        ":3: there is no nowhere.md",
        ":3: the page has no heading #no-such-heading",
        ":3: there is no file train/nothing.py",
    ]
    assert [each[: len(f"{page}{want}")] for each, want in zip(told, wanted, strict=True)] == [page + w for w in wanted]


# ---- running --------------------------------------------------------------------------------------------------------


class Reader:
    """Somebody who does what a page says, in a project of their own."""

    def __init__(self, project: Any, page: str) -> None:
        self.project, self.page = project, page
        self.path: Path = project.path

    def follow(self) -> list[str]:
        """Do all blocks in order; returns what went wrong, each with its line."""
        self._prepare()
        problems: list[str] = []
        for block in blocks_of(self.page):
            self.write(block)
            if block.language == "sh":
                problems += [problem for command in block.commands for problem in self._run(command)]
            elif block.language == "python" and block.note("run"):
                (self.path / "block.py").write_text(block.text)
                problems += self._call(block.where, "(the block)", ["block.py"], 0)
        return problems

    def _prepare(self) -> None:
        """Make what a reader has before a page begins."""
        from PIL import Image

        zoo = self.path / "data" / "zoo"
        if zoo.is_symlink():  # no command may write into the real one
            real = zoo.resolve()
            zoo.unlink()
            subprocess.run(["cp", "-r", str(real), str(zoo)], check=True)
        for folder in ("my_images", "photos"):
            for place in range(24):
                path = self.path / folder / f"class_{place % 3}" / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.frombytes("L", (16, 16), bytes((7 * place + place % 3 * spot) % 256 for spot in range(256))).save(
                    path
                )
        rows = [f"model_{model},dataset_{dataset},accuracy,{0.5 + 0.02 * model + 0.01 * (model * dataset % 5)}"
                for model in range(8) for dataset in range(8)]  # fmt: skip
        (self.path / "results.csv").write_text("\n".join(["model,dataset,metric,value", *rows]) + "\n")
        if self.page != "README.md":  # who reads on has written README's trainer
            for block in blocks_of("README.md"):
                self.write(block)
        (self.path / "other.ini").write_text((self.path / "config.ini").read_text())

    def write(self, block: Block) -> None:
        """Write the file that a block is."""
        if note := block.note("file"):
            (self.path / note.text).parent.mkdir(parents=True, exist_ok=True)
            (self.path / note.text).write_text(block.text)
        elif note := block.note("append"):
            self.project.append(note.text, "\n" + block.text)

    def _run(self, command: Command) -> list[str]:
        if command.not_run:
            return []
        text = re.sub(r"\bNAME\b", _TRAINER_FOR_NAME, command.text)
        text = _with_settings(text, command.settings)
        wanted = len(_RUN_ID.findall(text))
        runs = iter(self._newest_runs(wanted))
        text = _RUN_ID.sub(lambda _: next(runs), text)
        return self._call(command.where, text, replace(command, text=text), command.exit_code)

    def _newest_runs(self, count: int) -> list[str]:
        """The ids of the newest runs, the newest first; short ones are made where there are too few."""
        found: list[str] = []
        while len(found) < count:
            runs = self.path.glob("artifacts/**/runs/*/metrics.json")
            found = [path.parent.name for path in sorted(runs, key=os.path.getmtime, reverse=True)][:count]
            if len(found) < count:
                made = self.project.run(_TRAINER_FOR_NAME, "epochs=2", "plot_at_end=off")
                assert made.returncode == 0, made.stderr
        return found

    def _call(self, where: str, shown: str, command: Command | list[str], exit_code: int) -> list[str]:
        done = self._started(command)
        if done.returncode == exit_code:
            return []
        told = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        return [f"{where}: {shown}\n    exit code {done.returncode}, not {exit_code}:\n    {told}"]

    def _started(self, command: Command | list[str]) -> subprocess.CompletedProcess:
        """Run a plain `python ...` as tests do, anything else in a shell in which `python` is this one."""
        if isinstance(command, list):
            return run_python(command, self.path)
        words = command.parts[0]
        if shlex.join(words) == shlex.join(shlex.split(command.text)) and words[0] == "python" and words[1] != "-c":
            return run_python(words[1:], self.path)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", command.text], cwd=self.path, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip


def _with_settings(text: str, settings: tuple[str, ...]) -> str:
    """Add settings to a command, in place of those that it has of the same keys."""
    if not re.search(r"\btrain\.py [A-Za-z]", text):
        return text
    for setting in settings:
        key = setting.partition("=")[0]
        text = re.sub(rf"\s{key}=\S+", "", text) + f" {setting}"
    return text


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page, new_users_project):
    problems = Reader(new_users_project(), page).follow()
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_what_does_not_work_is_told_with_its_line(new_users_project, tmp_path):
    page = str(tmp_path / "bad.md")
    text = "<!-- exit [--list] 2 -->\n```sh\npython train.py --list\npython plot.py --help\ncat no_such_file\n```\n"
    Path(page).write_text(f"{text}\n<!-- run -->\n```python\nimport train\n1 / 0\n```\n")
    told = Reader(new_users_project(), page).follow()
    assert [each.splitlines()[:2] for each in told] == [
        [f"{page}:3: python train.py --list", "    exit code 0, not 2:"],
        [f"{page}:5: cat no_such_file", "    exit code 1, not 0:"],
        [f"{page}:10: (the block)", "    exit code 1, not 0:"],
    ]
    assert "ZeroDivisionError" in told[2]


def test_the_readmes_trainer_learns(users_project):
    for block in blocks_of("README.md"):
        Reader(users_project, "README.md").write(block)
    done = users_project.run("Digits", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    history = json.loads((users_project.runs("Digits")[-1] / "metrics.json").read_text())["history"]
    assert history["val_accuracy"][-1] > 0.85
