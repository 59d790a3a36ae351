"""Asks a model many things, as a process of its own: an answer is kept at once, and what is kept is not asked again."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from agents.endpoint.endpoint import Endpoint, EndpointError, Reply, ask

AT_ONCE = 8
"""Questions that are under way at a time."""


def main(words: Sequence[str]) -> int:
    """Ask what a file holds, and write each answer to another one.

    Args:
        words: the command line.

    Returns:
        0 where all is answered, else 1; the last line says why.
    """
    parser = argparse.ArgumentParser()
    for name in ("asked", "said"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("address", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--key", default="")
    options = parser.parse_args(words)
    endpoint = Endpoint(options.address, options.model, options.key)
    done = {one["id"] for one in kept_lines(options.said)}
    asked = list(kept_lines(options.asked))
    waiting = [one for one in asked if one["id"] not in done]
    pool, failed = ThreadPoolExecutor(AT_ONCE), ""
    try:
        with options.said.open("a+b") as stream:
            mend_end(options.said)
            futures = {pool.submit(_ask, endpoint, one): one["id"] for one in waiting}
            number = len(done)
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                try:
                    reply = future.result()
                except EndpointError as error:
                    # What is under way is paid for: it is waited for and kept, and nothing else is begun.
                    failed = failed or str(error)
                    # Not by the pool's shutdown, which drops them from its queue: nobody is told of these ever.
                    for other in futures:
                        other.cancel()
                    continue
                number += 1
                kept = {"id": futures[future], "text": reply.text, "finish": reply.finish, "tokens": reply.tokens}
                stream.write(f"{json.dumps(kept, ensure_ascii=False)}\n".encode("utf-8", "surrogatepass"))
                stream.flush()
                sys.stdout.write(f"{number}/{len(asked)} answered\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        os._exit(130)  # without waiting for calls that are under way
    if failed:
        sys.stdout.write(f"error: {failed}\n")
    return int(bool(failed))


def _ask(endpoint: Endpoint, one: dict[str, Any]) -> Reply:
    return ask(endpoint, one["messages"], one["max_tokens"], one.get("temperature", 0.0), one.get("seed", 0))


def kept_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a line that a kill has torn is left out.

    Args:
        path: the file; one that is not there has none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def mend_end(path: Path) -> None:
    """End the last line of a file, where a kill has torn it, so that the next one is a line of its own.

    Args:
        path: the file; nothing is done where it is not there.
    """
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as stream:
            stream.write(b"\n")
