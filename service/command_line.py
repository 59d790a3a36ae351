"""`python serve.py`: a model over the Tinker and OpenAI protocols. Its options are the settings of `[Service]`."""

import argparse
import errno
import logging
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from config import ConfigError, ConfigParser
from config.config_classes import key_types
from config.service_config import KEY_BEGINS, ServiceConfig, is_loopback
from constants import command
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from constants.counting import counted
from constants.nearest import nearest
from service.journal.journal_file import JournalError
from storage.errors import OutputError
from storage.files import output_errors

if TYPE_CHECKING:
    import torch

    from llm.base_model import BaseModel
    from service.local_service import LocalService

OK, USAGE, FAILED = 0, 2, 4
_SECTION = "Service"
_ANY_KEY = f"{KEY_BEGINS}local"
_LOOK = 1.0  # seconds between two looks at whether the engine's thread lives
_FILES = 65536  # that may be open: each connection is one
_LOG_BYTES = 10 * 2**20
# What options are called elsewhere.
_ELSEWHERE = {"key": "--api-key", "max-lora-rank": "--rank-max", "served-model-name": "--name", "dtype": "--precision",
              "max-num-seqs": "--sampled-rows", "base-model": "--model", "bind": "--host", "token": "--api-key",
              "max-loras": "--adapters", "store": "--folder", "backend": "--device"}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Serve until somebody stops it.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code: 0 when it was stopped, 2 when it can't begin, 4 when it failed, 128 and more when a signal ended
        it before it had begun.
    """
    given = _parser().parse_args(words)
    settings = {key: value for key in key_types(ServiceConfig) if (value := getattr(given, key)) is not None}
    ConfigParser.use(given.config, settings, _SECTION)
    try:
        if given.help:
            sys.stdout.write(_parser(in_force=True).format_help())
            return OK
        config = ConfigParser.get(ServiceConfig)
        with _signals() as stop:
            if given.tokenizer_for is not None:
                return _write_tokenizer(config, given.tokenizer_for.expanduser())
            return _serve(config, stop)
    except ConfigError as error:
        return _wrong("\n".join(_as_option(problem) for problem in error.problems), USAGE)
    except KeyboardInterrupt as error:
        number = int(str(error) or signal.SIGINT)
        return _wrong("stopped before it served", 128 + number)
    except (OutputError, JournalError) as error:
        return _wrong(str(error), USAGE)


# ------------------------------------------------------------------------------------------------------------- serving


def _serve(config: ServiceConfig, stop: "_Stop") -> int:
    from service.service_limits import ServiceLimits, rules_of
    from service.web.front import Front
    from service.web.loopback_server import LoopbackServer
    from service.web.request_log import LogFile

    _allow_files()
    with ExitStack() as open_now:
        with output_errors(config.folder, "folder"):
            config.folder.mkdir(parents=True, exist_ok=True)
            open_now.enter_context(_errors_into(config.folder / "service.log"))
            wanted = (("access.log", config.access_log), ("requests.log", config.log_requests))
            logs = [LogFile(config.folder / name) if on else None for name, on in wanted]
        for log in logs:
            if log is not None:
                open_now.callback(log.close)
        front = Front(rules_of(config, is_loopback(config.host)), *logs)
        try:  # the port first: one that is taken is told at once, and clients may come while the model is loaded
            server = open_now.enter_context(LoopbackServer(front, config.port, config.host, config.client_seconds))
        except OSError as error:
            return _wrong(_no_port(config, error), USAGE)
        base, name = _load(config)
        from service.local_service import running

        limits = ServiceLimits.of(config)
        folder = config.folder / name.replace("/", ".")  # of each model its own: models and checkpoints are of one base
        exact = config.replay == "exact"
        service = open_now.enter_context(
            running(base, folder, server.url, front, name, limits, config.journal, exact=exact)
        )
        stop.may_wait = True
        sys.stdout.write(_told(service, config))
        sys.stdout.flush()
        while not stop.asked.wait(_LOOK):
            if service.loop.ended:
                return _wrong(f"the engine's thread has ended; {config.folder / 'service.log'} says how", FAILED)
        return OK


def _load(config: ServiceConfig) -> "tuple[BaseModel, str]":
    """Return the model, and the name under which clients know it."""
    import torch

    from llm import base_model
    from llm.model_error import ModelError

    try:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[config.precision]
        base = base_model.load(config.model, _device(config.device), dtype)
    except ModelError as error:
        raise ConfigError([str(error).replace("base_model = ", "model = ")]) from error
    return base, config.name or _name_of(config.model)


def _name_of(model: str) -> str:
    """Return the name of a model: that of a hub as it is, of a path its last part, without what names can't have."""
    path = Path(model).expanduser()
    if path.is_file():
        model = path.stem
    elif path.is_dir():
        model = path.resolve().name
    return re.sub(r"[^\w./-]+", "-", model)


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        allowed = "auto, cpu, cuda, cuda:1, mps"
        raise ConfigError([f"device = {name} can't be used here ({why}): allowed are {allowed}"]) from error
    return device


def _write_tokenizer(config: ServiceConfig, home: Path) -> int:
    from service.tokenizer_files import write_hub_tokenizer

    base, name = _load(config)
    folder = write_hub_tokenizer(base, name, home.resolve())
    sys.stdout.write(
        f"the tokenizer of {name} is in {folder}\n"
        f"    export HF_HOME={shlex.quote(str(home.resolve()))} HF_HUB_OFFLINE=1\n"
        f'Clients then find it by the model\'s name: transformers.AutoTokenizer.from_pretrained("{name}").\n'
    )
    return OK


def _allow_files() -> None:
    """Let as many files be open as the system allows: each client has connections."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ImportError, ValueError, OSError):
        return  # it goes with those that there are


@contextmanager
def _errors_into(path: Path) -> Iterator[None]:
    """Write warnings and errors of this program into a file as well as to the standard error."""
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.raiseExceptions = False  # a full disk stops no service
    root = logging.getLogger()
    alone = not root.handlers
    if alone:
        root.addHandler(logging.StreamHandler())
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        if alone:
            root.handlers.clear()


class _Stop:
    """Whether somebody has asked the service to end: by Ctrl-C or SIGTERM.

    Attributes:
        asked: set when it is so.
        may_wait: whether somebody looks at `asked`; before, a signal ends what is under way at once.
    """

    def __init__(self) -> None:
        self.asked, self.may_wait = threading.Event(), False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal. The second one ends the process as if nobody listened."""
        if not self.may_wait:
            raise KeyboardInterrupt(number)
        self.asked.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -------------------------------------------------------------------------------------------------------- what is said


def _told(service: "LocalService", config: ServiceConfig) -> str:
    """Return what a person needs to reach the service."""
    name, key, url = service.models.name, config.api_key or _ANY_KEY, service.url
    note = "any key will do" if not config.api_key else "this key alone"
    if not is_loopback(config.host):
        port = url.rpartition(":")[2]
        url = f"http://{socket.gethostname()}:{port}" if config.host in ("0.0.0.0", "::") else url
        note += "; without TLS: let others reach it over a network that you trust, or through a proxy with https"
    again = ""
    if service.replayed:
        again = f"went on after a kill: {counted(service.replayed, 'turn')} of before done again\n"
    if service.others:
        again += f"WARNING: {counted(len(service.others), 'request')} gave other numbers than before (replay = close), "
        again += (
            f"the first: {service.others[0]}. Clients keep what they were told; models go on from the new numbers\n"
        )
    return f"""serving {name} at {url} ({note})
    export TINKER_BASE_URL={url} TINKER_API_KEY={key}
    export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}
Tinker (pip install tinker):
    import tinker
    client = tinker.ServiceClient().create_lora_training_client(base_model="{name}", rank=16).result()
    print(client.get_info())
OpenAI (pip install openai):
    from openai import OpenAI
    answer = OpenAI().chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello"}}])
    print(answer.choices[0].message.content)
curl:
    curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
      -H "Content-Type: application/json" \\
      -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
A client without a network that asks for the tokenizer by the model's name finds it after:
    {command("serve")} {_model_words(config)}--tokenizer-for HF_HOME
{again}status page: {url}/   metrics: {url}/metrics   files: {_shown(config.folder)}
Ctrl-C stops it; started again, it goes on with all that it was told.
"""


def _model_words(config: ServiceConfig) -> str:
    words = [f"--model {shlex.quote(config.model)} "] + ([f"--name {shlex.quote(config.name)} "] if config.name else [])
    return "".join(words)


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def _no_port(config: ServiceConfig, error: OSError) -> str:
    place = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use: stop what serves there, or take --port 0 (any free one) or another number"
    if error.errno == errno.EACCES:
        return f"{place} can't be listened on: ports below 1024 are the system's; take --port 8123"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {config.host} is no address of this machine; allowed are 127.0.0.1, 0.0.0.0 or one that it has"
    return f"{place} can't be listened on: {error.strerror or error}; try --port 0"


def _as_option(problem: str) -> str:
    """Return a problem of the command line by the name of its option."""
    return re.sub(r"^command line: (\w+)(?: =)?", lambda found: f"--{found[1].replace('_', '-')}", problem)


def _wrong(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


# --------------------------------------------------------------------------------------------------------- the options


class _Parser(BriefParser):
    """A parser that knows how settings are written for this command."""

    def unrecognized(self, words: list[str], options: list[str]) -> str:
        """Say what is wrong with words that no argument takes."""
        word, equals, value = words[0].partition("=")
        option = f"--{word.lstrip('-').replace('_', '-').lower()}"
        near = _ELSEWHERE.get(option.removeprefix("--")) or (option if option in options else nearest(option, options))
        value = f" {value}" if equals else ""
        if words[0].startswith("-") or equals:
            what = f"there is no option {word}" if word.startswith("-") else f"{words[0]} is no option"
            return f"{what}; did you mean {near}{value}?" if near else what
        return f"'{words[0]}' is one word too many: settings are written --name VALUE"


def _parser(in_force: bool = False) -> argparse.ArgumentParser:
    """Make the parser; `in_force` shows the values that `ConfigParser` has."""
    parser = _Parser(
        prog=command("serve"), add_help=False, allow_abbrev=False,
        description="Serve a language model over the Tinker and OpenAI protocols. Each option is a setting of "
        "[Service] in config.ini too, where its name has _ for -.",
        usage=f"{command('serve')} [--model MODEL] [--port PORT] [--name VALUE ...]",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=110),
    )  # fmt: skip
    settings = parser.add_argument_group("settings")
    others = parser.add_argument_group("besides")
    for doc in ConfigParser.describe(ServiceConfig):
        hint = doc.type
        note = f"{doc.doc.replace('`', '')} ({hint}" + (f"; {_value(doc.name, doc.default)})" if in_force else ")")
        option, text = f"--{doc.name.replace('_', '-')}", note.replace("%", "%%")
        if hint == "bool":  # alone it is on
            settings.add_argument(option, dest=doc.name, metavar="VALUE", help=text, nargs="?", const="on")
        else:
            settings.add_argument(option, dest=doc.name, metavar="VALUE", help=text)
    others.add_argument("--config", metavar="FILE", type=Path, help="read FILE instead of config.ini")
    others.add_argument(
        "--tokenizer-for", metavar="HF_HOME", type=Path,
        help="write the model's tokenizer into a cache of the hub, where clients find it by the model's name; leave",
    )  # fmt: skip
    others.add_argument("-h", "--help", action="store_true", help="show this, with the values in force, and leave")
    others.add_argument("--version", action=ShowVersion)
    return parser


def _value(key: str, default: str) -> str:
    """Say which value a setting has."""
    try:
        value = ConfigParser.peek_text(_SECTION, key)
    except ConfigError:
        value = "?"
    if key == "api_key" and value not in ("", "?"):
        value = f"{KEY_BEGINS}..."
    value = os.path.relpath(value) if os.path.isabs(value) else value
    value, default = ("empty" if each in ("", '""', "[]") else each for each in (value, default))
    return f"now {value}" + ("" if value == default else f", by default {default}")
