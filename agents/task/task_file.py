"""task.yaml is read: all that is wrong with it is told at once, each with its line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.endpoint.endpoint import Endpoint
from agents.task.task_parts import (
    DocumentsPlan,
    GeneratorPlan,
    JudgePlan,
    documents_of,
    endpoint_of,
    file_of,
    generator_of,
    judge_of,
)
from agents.task.trainer_choice import TrainerChoice, read_trainer
from constants.nearest import meant
from evaluation.text_metrics import METRICS
from workflow.definition.nodes import Node, Problems, root_of

SCHEMA = 1
_TOP = (
    "schema", "name", "description", "model", "samples", "test", "test_share", "metric", "goal", "max_tokens",
    "budget", "trainer", "training", "generator", "documents", "retrieve", "judge", "brain",
)  # fmt: skip
_NEEDED = ("schema", "name", "description", "samples")
_MODELS = ("smollm2", "tiny")  # that are here without a hub
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWN_METRIC = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
JUDGE = "judge"
"""The metric that is a judge's verdicts."""


class TaskError(Exception):
    """A task that can't be used; the text has a line for each mistake."""


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        rounds: trainings at most.
        minutes: time of trainings and evaluations at most; a round that has begun is ended.
    """

    rounds: int = 4
    minutes: float = 60.0


@dataclass(frozen=True)
class Task:
    """What is wanted of a model.

    Attributes:
        name: name of the task, and of its folder.
        description: what the model is to do, a sentence.
        model: base model, as `base_model` of config.ini has it.
        samples: file of rows to learn from.
        test: file of rows to measure with; None holds back a share of the samples.
        test_share: that share.
        metric: one of `evaluation.text_metrics.METRICS`, `judge`, or `FILE.py:FUNCTION` of the user's own.
        goal: score of all test answers at which it is good enough; None for as good as the budget allows.
        max_tokens: most tokens of an answer when it is measured.
        budget: what may be spent.
        trainer: what trains.
        training: settings of the first training, by their names in config.ini.
        metric_file: file of the user's own metric; None where it is none.
        generator: who makes rows; None where nobody does.
        documents: where knowledge is looked up; None where nothing is.
        retrieve: passages that are put in front of each question, to learn from and to measure with; 0 for none.
        judge: who judges answers; None where nobody does.
        brain: the language model that chooses what is done next; None leaves it to the written rules.
    """

    name: str
    description: str
    samples: Path
    model: str = "smollm2"
    test: Path | None = None
    test_share: float = 0.2
    metric: str = "chrf"
    goal: float | None = None
    max_tokens: int = 128
    budget: Budget = Budget()
    trainer: TrainerChoice = field(default_factory=TrainerChoice)
    training: Mapping[str, str] = field(default_factory=dict)
    metric_file: Path | None = None
    generator: GeneratorPlan | None = None
    documents: DocumentsPlan | None = None
    retrieve: int = 0
    judge: JudgePlan | None = None
    brain: Endpoint | None = None

    @property
    def missing(self) -> list[str]:
        """What the task names and is not there any more, a sentence each: a run goes on until it needs it."""
        gone = self.documents.gone if self.documents is not None else None
        return [f"{gone}, where the documents were, is not there: put it back before rows are made of them, or name "
                "another place in task.yaml"] if gone is not None else []  # fmt: skip

    @property
    def metric_function(self) -> str:
        """Name of the function of the user's own metric; "" where it is none."""
        found = _OWN_METRIC.fullmatch(self.metric)
        return found[2] if found else ""


def read_task(path: Path, made: bool = False) -> Task:
    """Read a task; JSON is YAML too.

    Args:
        path: the file. Paths in it are relative to its folder.
        made: whether it is that of a folder that was made: documents, which lie elsewhere, may be gone by now.

    Raises:
        TaskError: it can't be read, or says what makes no task.
    """
    problems = Problems(path)
    root = root_of(path, problems)
    if root is None:
        if not problems.texts:
            problems.add(0, f"it is empty; needed are {', '.join(_NEEDED)}")
        raise TaskError("\n".join(problems.sorted()))
    task = _task(Node(root, problems, path.name), path.resolve().parent, made)
    if problems.texts or task is None:
        raise TaskError("\n".join(problems.sorted()))
    return task


def _task(root: Node, folder: Path, made: bool) -> Task | None:
    top = root.mapping(_TOP, needed=_NEEDED)
    if top is None:
        return None
    schema = top["schema"].whole() if "schema" in top else None
    if schema is not None and schema != SCHEMA:
        top["schema"].problem(f"is {schema}; this program reads {SCHEMA}")
    usual = Task("", "", Path())
    texts = {key: top[key].text() for key in ("name", "description", "metric") if key in top}
    if (name := texts.get("name")) and not _NAME.fullmatch(name):
        top["name"].problem(f"is {name!r}; a name is small letters, digits and _, and begins with a letter")
    metric = texts.get("metric") or usual.metric
    own = _OWN_METRIC.fullmatch(metric)
    metric_file = folder / own[1] if own else None
    if metric_file is not None and not metric_file.is_file():
        top["metric"].problem(f"names {metric_file.name}, which is not there; paths are relative to {folder}")
    elif metric == JUDGE and "judge" not in top:
        top["metric"].problem("is judge, and the task names none: `judge: {endpoint: {...}, labels: FILE}`")
    elif own is None and metric not in (*METRICS, JUDGE):
        known = (*METRICS, JUDGE)
        top["metric"].problem(
            f"is {metric!r}; there are {', '.join(known)}, and FILE.py:FUNCTION of your own{meant(metric, known)}"
        )
    if "judge" in top and metric != JUDGE:
        top["judge"].problem(f"has no use where the metric is {metric}; `metric: judge` uses it")
    documents = documents_of(top.get("documents"), folder, there=not made)
    retrieve = top["retrieve"].whole() if "retrieve" in top else None
    if retrieve is not None and retrieve < 1:
        top["retrieve"].problem(f"is {retrieve}; at least one passage is looked up, or leave it out")
    if retrieve and documents is None:
        top["retrieve"].problem("needs `documents`: where passages are looked up")
    files = {key: file_of(top[key], folder) for key in ("samples", "test") if key in top}
    if "test" in top and "test_share" in top:
        top["test_share"].problem("has no use where `test` names a file; leave one of them out")
    trainer = read_trainer(top.get("trainer"), folder)
    model = _model(top["model"], trainer, folder) if "model" in top else usual.model
    share = top["test_share"].number(above=0) if "test_share" in top else None
    if share is not None and share >= 1:
        top["test_share"].problem(f"is {share:g}; it is a share of the samples, below 1")
    goal = top["goal"].number(above=0) if "goal" in top else None
    length = top["max_tokens"].whole() if "max_tokens" in top else None
    if length is not None and length < 1:
        top["max_tokens"].problem(f"is {length}; an answer has at least one token")
    if "generator" in top and trainer.needs_pairs:
        top["generator"].problem("makes questions with answers, and the trainer learns from pairs of answers")
    return Task(
        name=name or "", description=texts.get("description") or "", samples=files.get("samples") or Path(),
        model=model, test=files.get("test"), test_share=share or usual.test_share,
        metric=metric, goal=goal, max_tokens=length or usual.max_tokens, budget=_budget(top.get("budget")),
        trainer=trainer, training=_training(top.get("training")),
        metric_file=metric_file,
        generator=generator_of(top.get("generator"), documents is not None), documents=documents,
        retrieve=retrieve or 0, judge=judge_of(top.get("judge"), folder),
        brain=_brain(top.get("brain")),
    )  # fmt: skip


def _model(node: Node, trainer: TrainerChoice, folder: Path) -> str:
    """Return the base model: of a file or folder beside the task its whole path, whatever the run's folder is."""
    text = node.text() or ""
    if trainer.kind == "command" or text in _MODELS or text.startswith("tiny:"):
        return text
    path = Path(text).expanduser()
    if (folder / path).exists():
        return str((folder / path).resolve())
    if text.startswith((".", "/", "~")) or text.endswith(".gguf") or text.count("/") > 1:
        node.problem(f"is {text}, which is not there; paths are relative to {folder}")
    elif text and "/" not in text and trainer.kind not in ("trl", "tinker"):
        node.problem(
            f"is {text!r}; there are {', '.join(_MODELS)}, a folder, a GGUF file, and hub ids such as "
            f"HuggingFaceTB/SmolLM2-135M-Instruct{meant(text, _MODELS)}"
        )
    return text


def _budget(node: Node | None) -> Budget:
    found = node.mapping(("rounds", "minutes")) if node is not None else None
    usual = Budget()
    if not found:
        return usual
    rounds = found["rounds"].whole() if "rounds" in found else None
    if rounds is not None and rounds < 1:
        found["rounds"].problem(f"is {rounds}; a round is a training, and one is needed")
    minutes = found["minutes"].number(above=0) if "minutes" in found else None
    return Budget(rounds or usual.rounds, minutes or usual.minutes)


def _brain(node: Node | None) -> Endpoint | None:
    found = node.mapping(("endpoint",), needed=("endpoint",)) if node is not None else None
    return endpoint_of(found["endpoint"]) if found and "endpoint" in found else None


def _training(node: Node | None) -> dict[str, str]:
    found = node.mapping() if node is not None else None
    values = {key: value.plain() for key, value in (found or {}).items()}
    return {key: ("on" if value else "off") if isinstance(value, bool) else str(value) for key, value in values.items()}
