"""The logs of a proof: what was typed, what came of it, and what was installed."""

import hashlib
import json
import secrets
import time
from dataclasses import asdict
from pathlib import Path

from doctor.child_process import Ran
from doctor.proof.outcome import Proof
from doctor.redaction import redact


class LogFolder:
    """A folder with the log of one proof; nothing in it holds credentials.

    Args:
        parent: folder of all proofs.
        scratch: folder whose path is written as SCRATCH.
    """

    def __init__(self, parent: Path, scratch: Path) -> None:
        self.path = parent / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
        self.path.mkdir(parents=True)
        self._scratch = str(scratch)
        self._steps: list[dict[str, object]] = []

    def add(self, name: str, ran: Ran) -> None:
        """Note a command: its output goes into a file of its own."""
        file = f"{len(self._steps) + 1:02d}-{name}.txt"
        command = self.clean(" ".join(ran.command))
        self.write(file, f"$ {command}\n{ran.output}")
        self._steps.append(
            {"file": file, "command": command, "exit code": ran.code, "seconds": round(ran.seconds, 2),
             "stopped for time": ran.timed_out}
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        """Write a file of the log."""
        (self.path / name).write_text(self.clean(text), encoding="utf-8")

    def clean(self, text: str) -> str:
        """Return a text without credentials and without the scratch folder's path."""
        return redact(text.replace(self._scratch, "SCRATCH"))

    def finish(self, proof: Proof, tool: str) -> None:
        """Write what became of it: proof.json."""
        whole = {"tool": tool, "steps": self._steps, **asdict(proof)}
        self.write("proof.json", json.dumps(whole, indent=2, sort_keys=True, default=str) + "\n")


def digest_of(folder: str | Path) -> str:
    """Return a digest of the files of a log, by which a fact names its evidence."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
