"""A client of the service: hosted where there is a key, at TINKER_BASE_URL where that is set, else begun here."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import tinker

LOST = 75  # exit code by which the runner knows that the connection was lost, and begins again later
_STARTS = 120.0  # seconds


@contextlib.contextmanager
def service(model):
    """Yield a ServiceClient; a service of our own ends with the block, and what it keeps is in .workflow/service."""
    if os.environ.get("TINKER_BASE_URL") or os.environ.get("TINKER_API_KEY"):
        yield tinker.ServiceClient()
        return
    command = shlex.split(os.environ.get("WORKFLOW_SERVE") or "menagerie serve")
    folder = Path(".workflow/service")
    folder.mkdir(parents=True, exist_ok=True)
    words = [*command, "--model", model, "--port", "0", "--folder", str(folder.resolve())]
    with (folder / "service.log").open("a+") as log:
        start = log.seek(0, 2)
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = _address(process, folder / "service.log", start)
            yield tinker.ServiceClient(base_url=address, api_key="tml-local")
        finally:
            process.terminate()
            process.wait()


def _address(process, log, start):
    until = time.monotonic() + _STARTS
    while time.monotonic() < until:
        with log.open() as stream:
            stream.seek(start)
            text = stream.read()
        if found := re.search(r"http://127\.0\.0\.1:\d+", text):
            return found[0]
        if process.poll() is not None:
            raise SystemExit(f"the service did not start:\n{text[-2000:]}")
        time.sleep(0.1)
    raise SystemExit(f"the service said no address in {_STARTS:.0f} s; see {log}")


def lost_connections():
    """Leave with 75 where the connection is lost: the runner waits for it, and begins the step again."""
    return _Lost()


class _Lost:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, (tinker.APIConnectionError, tinker.APITimeoutError, ConnectionError)):
            sys.stderr.write(f"the connection was lost: {error}\n")
            sys.exit(LOST)


def tell(**event):
    """Tell the runner how far we are."""
    if path := os.environ.get("WORKFLOW_EVENTS"):
        with open(path, "a") as stream:
            stream.write(json.dumps(event) + "\n")


def read_rows(path):
    """Return the rows of a file of JSON lines; a last line that a kill has torn is left out."""
    if not Path(path).exists():
        return []
    *lines, _ = Path(path).read_text().split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def write_rows(path, rows):
    """Write JSON lines; the file is there whole, or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path, text):
    """Write a file that is there whole, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def append_row(path, row):
    """Add a row, on disk before we go on."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def datum(tokenizer, row):
    """Return a row as the service trains on it: of each token the next is asked for, those of the answer alone."""
    prompt = tokenizer.encode(f"{row['prompt']}\n", add_special_tokens=False)
    answer = tokenizer.encode(row["answer"], add_special_tokens=False)
    if tokenizer.eos_token_id is not None:
        answer = [*answer, tokenizer.eos_token_id]
    tokens = [*prompt, *answer]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(answer)
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": weights},
    )


def loss_of(answer, data):
    """Return the loss of a token, in nats, from what forward or forward_backward has answered."""
    weight = sum(sum(one.loss_fn_inputs["weights"].data) for one in data)
    return answer.metrics["loss:sum"] / weight
