"""What trains, as task.yaml says it: a name, a command, or a mapping with what the trainer needs."""

from dataclasses import dataclass
from pathlib import Path

from agents.task.task_parts import words_of
from constants.nearest import meant
from workflow.definition.nodes import Node

KINDS = ("sft", "dpo", "agent", "trl", "tinker")
METHODS = ("sft", "dpo", "grpo")
_KEYS = ("kind", "command", "method", "python", "reward", "address")
_BELONGS = {
    "command": ("command",),
    "trl": ("method", "python", "reward"),
    "agent": ("reward",),
    "tinker": ("address",),
}


@dataclass(frozen=True)
class TrainerChoice:
    """What trains.

    Attributes:
        kind: `sft` (answers), `dpo` (pairs of answers, one preferred), `agent` (reinforcement by a reward), `trl`,
            `tinker` (the Tinker API), or `command`.
        command: words of a command of the user's own.
        method: of trl: `sft`, `dpo` or `grpo`.
        python: of trl: Python of the environment that has it; empty for this program's.
        reward: of `agent` and of trl's `grpo`: `FILE.py:FUNCTION`, called with an answer and its row; empty for the
            task's metric.
        address: of tinker: base URL of the service; empty for what TINKER_BASE_URL says, else the hosted one.
    """

    kind: str = "sft"
    command: tuple[str, ...] = ()
    method: str = "sft"
    python: str = ""
    reward: str = ""
    address: str = ""

    @property
    def needs_pairs(self) -> bool:
        """Whether each row needs a rejected answer beside the right one."""
        return self.kind == "dpo" or (self.kind == "trl" and self.method == "dpo")


def read_trainer(node: Node | None, folder: Path) -> TrainerChoice:
    """Read what trains.

    Args:
        node: value of `trainer`; None for the usual.
        folder: folder that paths are relative to.
    """
    if node is None:
        return TrainerChoice()
    if not isinstance(node.plain(), dict):
        text = node.text()
        if text is None or text in KINDS:
            return TrainerChoice(text or "sft")
        return TrainerChoice("command", words_of(node))
    found = node.mapping(_KEYS)
    values = {key: value.text() or "" for key, value in (found or {}).items()}
    kind = values.get("kind") or ("command" if "command" in values else "sft")
    if kind not in (*KINDS, "command"):
        (found or {})["kind"].problem(f"is {kind!r}; there are {', '.join((*KINDS, 'command'))}{meant(kind, KINDS)}")
        return TrainerChoice()
    for key, value in (found or {}).items():
        if key != "kind" and key not in _BELONGS.get(kind, ()):
            allowed = _BELONGS.get(kind, ())
            value.problem(f"has no use with {kind}; it takes {', '.join(allowed) or 'nothing else'}")
    method = values.get("method") or "sft"
    if method not in METHODS:
        (found or {})["method"].problem(f"is {method!r}; there are {', '.join(METHODS)}{meant(method, METHODS)}")
    if kind == "trl" and method == "grpo" and not values.get("reward"):
        node.problem("of trl with grpo needs `reward: FILE.py:FUNCTION`, called with an answer and its row")
    reward = _reward((found or {})["reward"], folder) if values.get("reward") else ""
    command = words_of((found or {})["command"]) if values.get("command") else ()
    return TrainerChoice(kind, command, method, values.get("python", ""), reward, values.get("address", ""))


def _reward(node: Node, folder: Path) -> str:
    text = node.text() or ""
    file, sign, name = text.rpartition(":")
    if not sign or not name.isidentifier() or not file.endswith(".py"):
        node.problem(f"is {text}; it is FILE.py:FUNCTION, such as reward.py:score")
        return ""
    if not (folder / file).is_file():
        node.problem(f"is {text}: there is no file {folder / file}")
        return ""
    return f"{(folder / file).resolve()}:{name}"
