"""`python serve.py`: a model over the Tinker and OpenAI protocols."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from llm import base_model
from llm.engine import EngineLimits
from llm.model_error import ModelError
from service.local_service import LocalService, serve
from service.loopback_server import HOST
from storage.errors import OutputError

_USAGE = 2
_ANY_KEY = "tml-local"  # Tinker's client insists on the beginning
_LOOPBACK = ("127.0.0.1", "localhost")


def main() -> int:
    """Serve until somebody stops it.

    Returns:
        The exit code: 0 when it was stopped, 2 when it can't begin.
    """
    words = _parser().parse_args()
    if words.host not in _LOOPBACK and not words.api_key:
        return _wrong(f"--host {words.host} lets others reach the service: give --api-key too, such as tml-SOMETHING")
    if words.api_key is not None and (not words.api_key.isascii() or not words.api_key.startswith("tml-")):
        return _wrong("--api-key must be ASCII and begin with tml-: Tinker's client sends no other keys")
    if not 0 <= words.port <= 65535:
        return _wrong(f"--port is {words.port}; allowed are 0 (any free one) to 65535")
    for name, value in (("rank-max", words.rank_max), ("adapters", words.adapters)):
        if value < 1:
            return _wrong(f"--{name} is {value}; allowed are 1 or more")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        base = base_model.load(words.model)
        limits = EngineLimits(adapters=words.adapters, rank=words.rank_max)
        folder = Path(words.folder)
        with serve(base, folder, words.name, words.port, words.host, words.api_key, limits) as service:
            sys.stdout.write(_told(service, words.api_key or _ANY_KEY))
            sys.stdout.flush()
            stop.wait()
    except (ModelError, OutputError) as error:
        return _wrong(str(error))
    except OSError as error:
        return _wrong(f"{words.host}:{words.port} can't be listened on: {error.strerror or error}. Try --port 0")
    return 0


def _told(service: LocalService, key: str) -> str:
    """Return what a person needs to reach the service."""
    name = service.models.name
    return f"""serving {name} at {service.url}
    export TINKER_BASE_URL={service.url} TINKER_API_KEY={key}
    export OPENAI_BASE_URL={service.url}/v1 OPENAI_API_KEY={key}
Tinker:
    import tinker
    client = tinker.ServiceClient().create_lora_training_client(base_model="{name}", rank=16)
    print(client.get_info())
OpenAI:
    from openai import OpenAI
    answer = OpenAI().chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello"}}])
    print(answer.choices[0].message.content)
Ctrl-C stops it. Models and checkpoints are known until then; the files of checkpoints stay in {service.models.folder}.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve.py", description="Serve a model over the Tinker and OpenAI protocols.")
    parser.add_argument(
        "--model", default="smollm2", help="smollm2, tiny, a folder, a GGUF file or a hub id (default: smollm2)"
    )
    parser.add_argument("--name", default="", help="name under which clients know the model (default: as --model)")
    parser.add_argument("--host", default=HOST, help=f"address to listen on; others than {HOST} need --api-key")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on; 0 for any free one (default: 8123)")
    parser.add_argument("--api-key", help="key that clients must send; begins with tml-")
    parser.add_argument("--folder", default="service_store", help="folder of checkpoints (default: service_store)")
    parser.add_argument("--rank-max", type=int, default=256, help="greatest LoRA rank (default: 256)")
    parser.add_argument("--adapters", type=int, default=64, help="models that are trained at a time (default: 64)")
    return parser


def _wrong(text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return _USAGE
