"""Parts of a task that have keys of their own: who makes rows, what is looked up, who judges."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agents.endpoint.endpoint import Endpoint
from constants.nearest import meant
from workflow.definition.nodes import Node

WAYS = ("paraphrase", "vary", "new_cases", "hard_negatives", "documents")
_OFFLINE = ("paraphrase", "vary", "new_cases", "documents")  # what templates can make
SOURCES = ("templates", "endpoint", "command")


@dataclass(frozen=True)
class GeneratorPlan:
    """Who makes rows, and which.

    Attributes:
        source: one of `SOURCES`.
        ways: out of `WAYS`, in the order in which they take turns.
        rows: how many are wanted.
        few: fewer training rows than this are few, so that more are proposed.
        endpoint: model that makes them, where an endpoint does.
        command: command that makes them, where one does.
        near: questions that have this share of their trigrams in common are the same.
        leak: questions that have this share in common with one of the test are too near to it.
        seed: of what is drawn.
    """

    source: str = "templates"
    ways: tuple[str, ...] = ("paraphrase", "vary", "new_cases")
    rows: int = 100
    few: int = 200
    endpoint: Endpoint | None = None
    command: tuple[str, ...] = ()
    near: float = 0.9
    leak: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class DocumentsPlan:
    """Where knowledge is looked up: of folder, database and search one.

    Attributes:
        folder: folder of documents.
        database: file of a SQLite database.
        query: its query; the columns of a row are the text, and one called `title` or `id` its citation.
        search: command that is given a question and prints passages, JSON lines with `text` and `source`.
        embedding: model of embeddings, by whose vectors passages are found too.
    """

    folder: Path | None = None
    database: Path | None = None
    query: str = ""
    search: tuple[str, ...] = ()
    embedding: Endpoint | None = None

    @property
    def gone(self) -> Path | None:
        """The folder or database, where it is not there any more."""
        place = self.folder or self.database
        return place if place is not None and not place.exists() else None


@dataclass(frozen=True)
class JudgePlan:
    """Who judges answers.

    Attributes:
        endpoint: the model that judges.
        labels: file of answers that a person has judged.
        criterion: what makes an answer good; "" for what the task's description says.
        choices: its verdicts, from the worst to the best.
        least: Cohen's kappa of its verdicts and the labels, below which it isn't used unless a person says so.
    """

    endpoint: Endpoint
    labels: Path
    criterion: str = ""
    choices: tuple[str, ...] = ("fail", "pass")
    least: float = 0.6


def file_of(node: Node, folder: Path, there: bool = True) -> Path | None:
    """Return the path that a node names; None, and a mistake, where nothing is there.

    Args:
        node: the node.
        folder: folder that paths are relative to.
        there: whether it is a mistake that nothing is there.
    """
    text = node.text()
    if text is None:
        return None
    path = folder / text
    if there and not path.exists():
        node.problem(f"is {text}, which is not there; paths are relative to {folder}")
    return path


def words_of(node: Node | None) -> tuple[str, ...]:
    """Return the words of a command; none where there is no node, or none, and a mistake, where it is no command."""
    text = node.text() if node is not None else None
    if node is None or text is None:
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        node.problem(f"is no command: {str(error).lower()}")
        return ()


def endpoint_of(node: Node | None) -> Endpoint | None:
    """Return where a model is: `address`, `model`, and maybe `key`, the environment variable that holds its key."""
    found = node.mapping(("address", "model", "key"), needed=("address", "model")) if node is not None else None
    if not found:
        return None
    texts = {name: one.text() or "" for name, one in found.items()}
    place = urlsplit(texts.get("address", ""))
    if texts.get("address") and (place.scheme not in ("http", "https") or not place.hostname):
        found["address"].problem(f"is {texts['address']!r}; needed is such as http://127.0.0.1:8123/v1")
    if (key := texts.get("key")) and not key.replace("_", "a").isalnum():
        # What was written is not repeated: it may be the key itself.
        found["key"].problem("is no name of an environment variable; the key itself belongs into one, not into a file")
    return Endpoint(texts.get("address", ""), texts.get("model", ""), texts.get("key", ""))


def generator_of(node: Node | None, has_documents: bool) -> GeneratorPlan | None:
    """Return who makes rows; None where nobody does.

    Args:
        node: the value of `generator`.
        has_documents: whether the task has documents.
    """
    known = ("source", "ways", "rows", "few", "endpoint", "command", "near", "leak", "seed")
    found = node.mapping(known) if node is not None else None
    if found is None:
        return None
    usual = GeneratorPlan()
    given = found["source"].text() if "source" in found else None
    source = given or next((name for name in ("endpoint", "command") if name in found), usual.source)
    if source not in SOURCES:
        found["source"].problem(f"is {source!r}; there are {', '.join(SOURCES)}{meant(source, SOURCES)}")
    for name in ("endpoint", "command"):
        if name == source and name not in found and node is not None:
            node.problem(f"lacks the key {name}: rows are to come from there")
        elif name in found and name != source:
            found[name].problem(f"has no use where the source is {source}")
    return GeneratorPlan(
        source, _ways(found.get("ways"), source, has_documents), _count(found, "rows", usual.rows),
        _count(found, "few", usual.few), endpoint_of(found.get("endpoint")), words_of(found.get("command")),
        _share(found, "near", usual.near), _share(found, "leak", usual.leak),
        found["seed"].whole() or 0 if "seed" in found else 0,
    )  # fmt: skip


def _ways(node: Node | None, source: str, has_documents: bool) -> tuple[str, ...]:
    usual = (*GeneratorPlan().ways, *(["documents"] if has_documents else []))
    if node is None:
        return usual
    ways = tuple(dict.fromkeys(node.texts()))
    for way in ways:
        if way not in WAYS:
            node.problem(f"has {way!r}; there are {', '.join(WAYS)}{meant(way, WAYS)}")
        elif source == "templates" and way not in _OFFLINE:
            node.problem(f"has {way}, which templates can't make: they know no meanings; an endpoint or a command can")
        elif way == "documents" and not has_documents:
            node.problem("has documents, and the task names none: `documents: FOLDER`")
    return ways or usual


def _count(found: dict[str, Node], name: str, usual: int) -> int:
    value = found[name].whole() if name in found else None
    if value is not None and value < 1:
        found[name].problem(f"is {value}; the least is 1")
    return value if value is not None else usual


def _share(found: dict[str, Node], name: str, usual: float) -> float:
    value = found[name].number(above=0) if name in found else None
    if value is not None and value > 1:
        found[name].problem(f"is {value:g}; it is a share, up to 1")
    return value or usual


def documents_of(node: Node | None, folder: Path, there: bool) -> DocumentsPlan | None:
    """Return where knowledge is looked up; None where nothing is.

    Args:
        node: the value of `documents`: a folder, or keys and values.
        folder: folder that paths are relative to.
        there: whether it is a mistake that nothing is there.
    """
    if node is None:
        return None
    if not node.is_mapping():
        return DocumentsPlan(folder=file_of(node, folder, there))
    found = node.mapping(("folder", "database", "query", "search", "embedding"))
    if found is None:
        return None
    places = [name for name in ("folder", "database", "search") if name in found]
    if len(places) != 1:
        told = " and ".join(places) or "none of them"
        node.problem(f"has {told}; needed is one of folder, database and search")
    if ("database" in found) != ("query" in found):
        node.problem("needs both, database and query: which rows of which database")
    return DocumentsPlan(
        file_of(found["folder"], folder, there) if "folder" in found else None,
        file_of(found["database"], folder, there) if "database" in found else None,
        (found["query"].text() or "") if "query" in found else "",
        words_of(found.get("search")), endpoint_of(found.get("embedding")),
    )  # fmt: skip


def judge_of(node: Node | None, folder: Path) -> JudgePlan | None:
    """Return who judges answers; None where nobody does.

    Args:
        node: the value of `judge`.
        folder: folder that paths are relative to.
    """
    known = ("endpoint", "labels", "criterion", "choices", "least")
    found = node.mapping(known, needed=("endpoint", "labels")) if node is not None else None
    if found is None:
        return None
    endpoint = endpoint_of(found.get("endpoint"))
    labels = file_of(found["labels"], folder) if "labels" in found else None
    usual = JudgePlan(Endpoint("", ""), Path())
    choices = tuple(found["choices"].texts()) if "choices" in found else usual.choices
    if len(set(choices)) < 2 or len(set(choices)) < len(choices):
        found["choices"].problem("needs two different verdicts at least, from the worst to the best")
    return JudgePlan(
        endpoint or usual.endpoint, labels or Path(), (found["criterion"].text() or "") if "criterion" in found else "",
        choices, _share(found, "least", usual.least),
    )  # fmt: skip
