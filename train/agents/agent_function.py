"""An agent: a function of a user's own, that is given a task and returns its reward."""

import asyncio
import importlib
import importlib.util
import inspect
import math
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from constants import PACKAGE_ROOT, PROJECT_ROOT
from constants.nearest import nearest
from train.agents.worker_process import worker_command

_LARGEST = 1e30  # of a number that an agent returns: it is squared, and has to be a float32
_LONGEST_NAME = 60  # characters of the name of such a number, which stands in files, plots and trackers
_NAMED = 8  # names that a message lists, at most
_HOW = "give it as file:function or module:function, such as examples/hello.py:hello"
GIVE_TASKS = "give a file of tasks (tasks = tasks.jsonl), or a function tasks(split) beside the agent"
REWARD, CLIENT = "reward", "client"
SPLITS, ALL = ("train", "val"), "all"


class AgentFunctionError(ValueError):
    """An agent that can't be had, or what it returned that is no reward. The text says what to do."""


@dataclass(frozen=True)
class AgentFunction:
    """A function that plays an agent.

    Attributes:
        target: how it was named, `file:function` or `module:function`.
        function: the function.
        module: what it was found in.
        takes_client: whether it is given an OpenAI client; else it makes one itself.
        is_async: whether it is a coroutine function; then its client is an AsyncOpenAI.
    """

    target: str
    function: Callable[..., object]
    module: ModuleType
    takes_client: bool
    is_async: bool

    def source(self) -> bytes:
        """Return its file's content; nothing where there is none."""
        try:
            return Path(str(self.module.__file__)).read_bytes()
        except OSError:
            return b""

    @property
    def command(self) -> list[str]:
        """How a process is started that plays it, where it makes its client itself."""
        return worker_command(sys.executable, self.target)

    def module_tasks(self) -> dict[str, list[object]]:
        """Return the tasks of its module: of each split where `tasks(split)` is beside it, or `all` of `tasks()`.

        Raises:
            AgentFunctionError: there is no such function.
            Exception: whatever it raises.
        """
        make = getattr(self.module, "tasks", None)
        if not callable(make):
            raise AgentFunctionError(f"agent = {self.target} has no tasks: {GIVE_TASKS}.")
        if not inspect.signature(make).parameters:
            return {ALL: _listed(make(), f"tasks() of agent = {self.target}")}
        return {split: _listed(make(split), f"tasks({split!r}) of agent = {self.target}") for split in SPLITS}

    def call(
        self,
        task: object,
        client: object = None,
        run: Callable[[Coroutine[object, object, object]], object] = asyncio.run,
    ) -> tuple[float, dict[str, float]]:
        """Let it do a task.

        Args:
            task: the task.
            client: an OpenAI client, where it takes one.
            run: runs a coroutine to its end, where the agent is one.

        Returns:
            Its reward, and further numbers by name.

        Raises:
            AgentFunctionError: what it returned is no reward.
            Exception: whatever it raises.
        """
        with _forks_end():
            returned = self.function(task, client=client) if self.takes_client else self.function(task)
            if inspect.isawaitable(returned):
                returned = run(_awaited(returned))
            return reward_of(returned)

    async def call_async(self, task: object, client: object) -> tuple[float, dict[str, float]]:
        """As `call`, of a coroutine function, in the event loop that runs."""
        with _forks_end():
            returned = self.function(task, client=client)
            return reward_of(await returned if inspect.isawaitable(returned) else returned)


@contextmanager
def _forks_end() -> Iterator[None]:
    """End processes that are forked in here and come out: their answer would be taken for their parent's."""
    here = os.getpid()
    code: str | int = 0
    try:
        yield
    except BaseException as error:
        if os.getpid() == here:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        code = (error.code or 0) if isinstance(error, SystemExit) else 1
    if os.getpid() != here:
        os._exit(code if isinstance(code, int) else 1)


def _listed(returned: object, what: str) -> list[object]:
    """Return tasks as a list; a text or a dict, whose letters or keys would be tasks, is surely something else."""
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        kind = "None" if returned is None else f"something of type {type(returned).__name__}"
        raise AgentFunctionError(f"{what} returned {kind}: it must be a list of tasks")
    return list(returned)


async def _awaited(returned: Awaitable[object]) -> object:
    return await returned


def reward_of(returned: object) -> tuple[float, dict[str, float]]:
    """Return the reward and the further numbers of what an agent returned.

    Raises:
        AgentFunctionError: it is neither a finite number, nor a mapping of names to such with a `reward`.
    """
    if isinstance(returned, Mapping):
        for name in map(str, returned):
            if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
                shown = repr(name) if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]!r}..."
                raise AgentFunctionError(
                    f"it returned a number with the name {shown}: names are 1 to {_LONGEST_NAME} printable characters"
                )
        numbers = {str(name): _number(value, f"{name!r} of what it returned") for name, value in returned.items()}
        if REWARD not in numbers:
            names = ", ".join(numbers) or "nothing"
            raise AgentFunctionError(f"it returned a dict without 'reward' (it has {names}): a reward is needed")
        return numbers.pop(REWARD), numbers
    return _number(returned, "what it returned"), {}


def _number(value: object, what: str) -> float:
    if value is None:
        raise AgentFunctionError(f"{what} is None (has a path through it no return?): it must be a number")
    item = getattr(value, "item", None)  # numbers of numpy and torch
    try:
        number = value if isinstance(value, int | float) else item() if callable(item) else None
        number = float(number) if isinstance(number, int | float) else None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = None
    if number is None:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise AgentFunctionError(f"{what} is {shown} ({type(value).__name__}): it must be a number, such as 1.0")
    if not math.isfinite(number):
        raise AgentFunctionError(f"{what} is {number}: it must be a finite number")
    if abs(number) > _LARGEST:
        raise AgentFunctionError(f"{what} is {number:g}: it must lie between -{_LARGEST:g} and {_LARGEST:g}")
    return number


def find_agent(target: str) -> AgentFunction:
    """Import an agent.

    Args:
        target: `file:function`, of which the file is looked for in the folder at hand, in the project's and beside this
            program; or `module:function`.

    Raises:
        AgentFunctionError: there is none, or it can't be called with a task.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise AgentFunctionError(f"agent = {target}: {_HOW}")
    module = _module_of(place, target)
    function = getattr(module, name, None)
    if not callable(function):
        functions = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        near = nearest(name, functions)
        there = f"did you mean {near}?" if near else f"it has: {_some_of(functions) or 'no function'}"
        raise AgentFunctionError(f"agent = {target}: {place} has no function {name}; {there}")
    takes_client = _takes_client(function, target)
    is_async = inspect.iscoroutinefunction(function)
    return AgentFunction(target, function, module, takes_client, is_async)


def _some_of(names: Sequence[str]) -> str:
    """Return names as a list of a message; of many the first ones."""
    return ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])


def _module_of(place: str, target: str) -> ModuleType:
    if place.endswith(".py"):
        found = _file_at(place)
        if found is None:
            raise AgentFunctionError(f"agent = {target}: there is no file {place} in {Path.cwd()}; {_HOW}")
        return _imported(target, lambda: _of_file(found.resolve()))
    if not all(part.isidentifier() for part in place.split(".")):
        there = f"{place} is no module's name, and a file must be one of Python's, .py"
        near = f"; did you mean {place}.py?" if _file_at(f"{place}.py") else ""
        raise AgentFunctionError(f"agent = {target}: {there}{near or f'; {_HOW}'}")
    if str(PROJECT_ROOT) not in sys.path:
        sys.path.insert(0, str(PROJECT_ROOT))
    return _imported(target, lambda: importlib.import_module(place))


def _file_at(place: str) -> Path | None:
    """Return the file of that name in the folder at hand, in the project's, or beside this program; None if none is."""
    places = (folder / Path(place).expanduser() for folder in (Path.cwd(), PROJECT_ROOT, PACKAGE_ROOT))
    return next((each for each in places if each.is_file()), None)


def _of_file(file: Path) -> ModuleType:
    if str(file.parent) not in sys.path:  # what it imports from beside it
        sys.path.append(str(file.parent))
    name = f"agent_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # of a .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _some_key() -> Iterator[None]:
    """Let clients be made at the top of a module where there is no key: processes that play have one of their own."""
    name = "OPENAI_API_KEY"
    lacks = name not in os.environ
    os.environ.setdefault(name, "none")
    try:
        yield
    finally:
        if lacks:
            os.environ.pop(name, None)


def _imported(target: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        with _some_key():
            return load()
    except (Exception, SystemExit) as error:  # whatever a user's module raises, sys.exit() too
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        inside = [frame for frame in frames if frame.filename != __file__]
        where = f"{inside[-1].filename}:{inside[-1].lineno}: " if inside else ""
        how = ""
        if isinstance(error, ModuleNotFoundError):
            how = "; install it for the Python that plays the agent: this program's, or agent_python"
            if not inside:  # the agent's own module
                how = f"; {_HOW}"
        told = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise AgentFunctionError(f"agent = {target} can't be imported: {where}{told}{how}") from error


def _takes_client(function: Callable[..., object], target: str) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    named = {each.name for each in parameters}
    needed = [each.name for each in parameters if each.default is each.empty
              and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]  # fmt: skip
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    takes_task = bool(positional) and positional[0].name != CLIENT
    takes_task = takes_task or any(each.kind is each.VAR_POSITIONAL for each in parameters)
    others = [name for name in needed if name != CLIENT][1:]
    if not takes_task or others:
        what = f"needs {', '.join(needed)}" if others else "takes no task"
        what = "takes the client first" if positional and positional[0].name == CLIENT else what
        what = "is a class, and takes no task" if inspect.isclass(function) else what
        raise AgentFunctionError(
            f"agent = {target}: it {what}; it is called as {target.rpartition(':')[2]}(task, client), or as "
            f"{target.rpartition(':')[2]}(task) where it makes its OpenAI() itself"
        )
    return CLIENT in named
