"""The words of `python tune.py`."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agents.answer_report import report_of
from agents.dashboard.page_error import PageError
from agents.driver import BusyError, Driver, Standing
from agents.effects import EffectError
from agents.endpoint.endpoint import EndpointError
from agents.events import ERROR, Events
from agents.explanation import ExplanationError, explanation_html, explanation_text
from agents.forks import ForkError
from agents.generation.row_making import GeneratorError
from agents.models.command import TryError, told_models, told_try
from agents.new_task import make_folder
from agents.nodes.evaluator import EvaluationError
from agents.questions import AnswerError, Answers, Question
from agents.screen import Screen, question_text
from agents.story import story_of
from agents.task.folder import TaskFolder
from agents.task.repository import MAIN, RepositoryError
from agents.task.task_file import TaskError, read_task
from agents.trainers.trainer import TrainerError
from config import ConfigError
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from constants.counting import counted
from constants.end_signals import Terminated, hearing_signals
from constants.program import command
from data.data_error import DataError
from storage.errors import OutputError

_LOOK = 0.2  # seconds between two looks for an answer
OK, WAITING, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
_EXITS = """exit codes: 0 done, 1 a question waits for an answer, 2 usage or a mistake in a file, 3 a step could not
be done, 130 and 143 stopped; the same command goes on"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(words)
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "new": _new, "run": _run, "resume": _run, "status": _status, "answer": _answer, "log": _log,
        "serve": _serve, "fork": _fork, "explain": _explain, "models": _models,
    }  # fmt: skip
    try:
        with hearing_signals():
            return verbs[arguments.verb](arguments)
    except (TaskError, ConfigError) as error:  # of a file's mistakes each line is one
        return _refused("\nerror: ".join(str(error).splitlines()), USAGE)
    except (DataError, AnswerError, RepositoryError, PageError, ForkError, ExplanationError) as error:
        return _refused(str(error), USAGE)
    except (BusyError, EffectError, EndpointError, EvaluationError, GeneratorError, TrainerError, TryError, OutputError,
            OSError) as error:  # fmt: skip
        return _refused(str(error), FAILED)
    except Terminated as ended:
        return _refused(f"ended by {ended}; the same command goes on", 128 + ended.number)
    except KeyboardInterrupt:
        return _refused("interrupted; the same command goes on", INTERRUPTED)


def _parser() -> BriefParser:
    parser = BriefParser(
        prog=command("tune"), description="Fine-tune a model with agents, and a person who decides.",
        allow_abbrev=False, epilog=_EXITS, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action=ShowVersion)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    new = verbs.add_parser("new", help="make the folder of a task", allow_abbrev=False,
                           description="Make the folder of a task: rows split, settings, a repository.")  # fmt: skip
    new.add_argument("task", type=Path, metavar="TASK.yaml", help="what is wanted, as YAML or JSON")
    new.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="folder to make (default: beside TASK.yaml, by its name)"
    )
    models = verbs.add_parser("models", help="say which models could be tuned for a task here", allow_abbrev=False,
                              description="Say which open models fit a task and this machine.")  # fmt: skip
    models.add_argument("task", type=Path, metavar="TASK.yaml", help="what is wanted")
    models.add_argument("--languages", default="", help="codes of languages that it must speak, such as en,de")
    models.add_argument("--any-licence", action="store_true", help="take licences with terms of their own too")
    models.add_argument("--memory", type=_gib, metavar="GIB", help="memory that there is (default: what is free here)")
    models.add_argument("--try", dest="tried", metavar="NAME", help="tune this one for a moment, and measure it")
    texts = {
        "run": "go on until a question has nobody to answer it, or all is done",
        "resume": "the same as run",
        "status": "show how far it is, and what is asked",
        "answer": "answer the question that waits",
        "log": "tell what was tried, why, and what came of it",
        "explain": "tell which words of a row carry the loss, and which words of the prompt lower it",
        "fork": "begin another thread of the run where it was at a step; without AT, list the steps",
        "serve": "show the run as a page that answers questions, and keep it going",
    }
    for word, text in texts.items():
        verb = verbs.add_parser(word, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        verb.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR",
                          help="the task's folder (default: the current one)")  # fmt: skip
        verb.add_argument("--thread", default="main", metavar="NAME", help="thread of the run (default: main)")
        if word == "fork":
            verb.add_argument("at", nargs="?", metavar="AT", help="step, round-N, or id of a question")
            verb.add_argument("name", nargs="?", metavar="NAME", help="name of the new thread (default: fork-1, ...)")
        if word == "explain":
            verb.add_argument("row", metavar="ROW", help="id of a row, or number of a test row from 1")
            verb.add_argument("--json", action="store_true", help="print one JSON object instead of text")
            verb.add_argument("--html", action="store_true", help="print a piece of a page instead of text")
        if word in ("run", "resume"):
            verb.add_argument("--yes", action="store_true", help="answer questions by the written rules")
            verb.add_argument("--wait", action="store_true", help="wait for answers that are given elsewhere")
        if word == "serve":
            verb.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
            verb.add_argument("--port", type=int, default=8090, help="port (default: 8090; 0 takes a free one)")
            verb.add_argument("--key", help="key that visitors need; needed where --host is not this machine alone")
        if word == "status":
            verb.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        if word == "answer":
            verb.add_argument(
                "values", nargs="+", metavar="NAME=VALUE", help="values of the form, such as decision=train"
            )
    return parser


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no memory; it is a number of GiB, such as 8")
    return value


def _new(arguments: argparse.Namespace) -> int:
    made = make_folder(arguments.task, arguments.folder)
    for found in made.found:
        _print("\n".join([found.told, *found.left_out]))
    for told in made.told:
        _print(told)
    rows = counted(len(made.train), "row")
    _print(f"{made.folder.path}: {rows} to train on, {len(made.test)} to measure with\n"
           f"next: {command('tune')} run {arguments.folder or made.folder.path}")  # fmt: skip
    return OK


def _folder(arguments: argparse.Namespace) -> TaskFolder:
    return TaskFolder(arguments.folder.resolve(), arguments.thread)


def _of_thread(arguments: argparse.Namespace) -> str:
    """Return the words that name the thread in a command; "" for the one that a run begins with."""
    return f" --thread {arguments.thread}" if arguments.thread != MAIN else ""


def _fork(arguments: argparse.Namespace) -> int:
    if arguments.at is None and not arguments.folder.is_dir():  # `fork AT` in the task's folder
        arguments.folder, arguments.at = Path(), str(arguments.folder)
    driver = Driver(_folder(arguments), lambda node, text: None)
    if arguments.at is None:
        told = [point.told for point in driver.points()]
        _print(
            "\n".join([f"steps of {arguments.thread}:", *told] if told else [f"not begun yet: {command('tune')} run"])
        )
        return OK
    name, point = driver.fork(arguments.at, arguments.name)
    _print(
        f"{name} begins at step {point.told}\n{command('tune')} run {arguments.folder} --thread {name} goes on with it"
    )
    return OK


def _run(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    screen, events = Screen(sys.stdout), Events(folder.events)

    def tell(node: str, text: str) -> None:
        screen.tell(node, text)
        events.add(node, text)

    waiting = _Waiting(Answers(folder.answers))
    ask = waiting.ask if arguments.wait else _ask_here if sys.stdin.isatty() else _nobody
    driver = Driver(folder, tell)
    try:
        now = driver.run(ask, arguments.yes)
    except BusyError:
        raise  # the run itself has not ended
    except Exception as error:
        events.add(ERROR, str(error) or type(error).__name__)  # for the page, which sees no terminal
        raise
    if any(told.node == ERROR for told in events.last(1)[0]):
        events.add("", "it goes on")
    if now.question is not None:
        thread = _of_thread(arguments)
        answer = _example(now.question)
        _print(f"{question_text(now.question)}\n{command('tune')} answer {arguments.folder} {answer}{thread} answers "
               f"it, and {command('tune')} run {arguments.folder}{thread} goes on; --yes answers by rule")  # fmt: skip
        return WAITING
    _print("\n".join(story_of(folder.task(), now.state)))
    if now.state["model"]:
        _print(f"the model is in {folder.model}")
    return OK


def _models(arguments: argparse.Namespace) -> int:
    task = read_task(arguments.task)
    if arguments.tried:
        lines = told_try(task, arguments.tried)
    else:
        languages = frozenset(arguments.languages.replace(",", " ").split())
        lines = told_models(task, languages, arguments.any_licence, arguments.memory)
    for line in lines:
        _print(line)
    return OK


def _status(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    driver = Driver(folder, lambda node, text: None)
    now = driver.standing()
    if arguments.json:
        question = now.question.plain() if now.question else None
        whole = {"node": now.node, "question": question, "state": now.state, "threads": driver.threads(),
                 "missing": folder.task().missing}  # fmt: skip
        _print(json.dumps(whole, ensure_ascii=False))
        return OK
    _print(_standing_text(folder, now, driver.threads()))
    return OK


def _standing_text(folder: TaskFolder, now: Standing, threads: Sequence[str]) -> str:
    if not now.state:
        return f"not begun yet: {command('tune')} run"
    lines = [*story_of(folder.task(), now.state), *_missing(folder)]
    if len(threads) > 1:
        lines.append(f"threads: {', '.join(threads)}; this is {folder.thread}")
    if now.question is not None:
        return "\n".join([*lines, question_text(now.question)])
    return "\n".join([*lines, f"next is {now.node}" if now.node else "it is over"])


def _missing(folder: TaskFolder) -> list[str]:
    return [f"missing: {told}" for told in folder.task().missing]


def _example(question: Question) -> str:
    return " ".join(f"{field.name}={field.default}" for field in question.fields)


def _answer(arguments: argparse.Namespace) -> int:
    first, given = arguments.values[0], str(arguments.folder)
    if "=" not in first and Path(first).is_dir() and (given == "." or "=" in given):
        # `answer DIR`, or the answer before the folder
        arguments.folder, arguments.values = Path(first), [word for word in (given,) if word != "."]
    folder = _folder(arguments)
    question = Driver(folder, lambda node, text: None).standing().question
    if question is None:
        raise AnswerError(f"nothing is asked; {command('tune')} status shows how far it is")
    if not arguments.values:
        forms = "; ".join(f"{field.name} may be {', '.join(field.choices)}" for field in question.fields)
        raise AnswerError(f"no answer is given to {question.title!r}, such as {_example(question)}; {forms}")
    values = {}
    for word in arguments.values:
        name, sign, value = word.partition("=")
        if not sign:
            raise AnswerError(f"{word} is no NAME=VALUE, such as {_example(question)}")
        values[name] = value
    Answers(folder.answers).give(question, values, "person")
    _print(f"{question.id} is answered; {command('tune')} run goes on")
    return OK


def _log(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    driver = Driver(folder, lambda node, text: None)
    now = driver.standing()
    if not now.state:
        _print(f"not begun yet: {command('tune')} run")
        return OK
    rows = report_of(folder, driver, now.state, folder.task().metric)
    _print("\n".join([*story_of(folder.task(), now.state), *_missing(folder), "", *rows, "questions:"]))
    for one in now.state["answers"]:
        told = ", ".join(f"{name} = {value}" for name, value in one["values"].items())
        _print(f"  {one['question']}: {told} (by {one['by']})")
    return OK


def _explain(arguments: argparse.Namespace) -> int:
    found = Driver(_folder(arguments), lambda node, text: None).explain(arguments.row)
    if arguments.json:
        _print(json.dumps(found.plain(), ensure_ascii=False))
    else:
        _print(explanation_html(found) if arguments.html else explanation_text(found))
    return OK


def _ask_here(question: Question) -> Mapping[str, str] | None:
    """Ask at the terminal; None at the end of input."""
    _print(question_text(question))
    values = {}
    for field in question.fields:
        while True:
            sys.stdout.write(f"{field.label} [{field.default}] ")
            sys.stdout.flush()
            line = sys.stdin.readline()
            if not line:
                return None
            value = line.strip() or field.default
            if value in field.choices:
                break
            _print(f"there are {', '.join(field.choices)}")
        values[field.name] = value
    return values


def _nobody(question: Question) -> None:
    return None


class _Waiting:
    """Waits until somebody answers elsewhere: on the page, or by `tune.py answer`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def ask(self, question: Question) -> None:
        """Wait for the answer to a question."""
        _print(question_text(question))
        while self._answers.of(question) is None:
            time.sleep(_LOOK)


def _serve(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    folder.task()
    from agents.dashboard.serving import serve_page  # takes half a second, which other words need not wait for

    serve_page(folder, arguments.host, arguments.port, arguments.key)
    return OK


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _refused(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code
