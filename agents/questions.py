"""Questions to a person, and their answers: each is answered once, by whoever comes first."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from constants.nearest import meant
from storage.files import sync

_ID = re.compile(r"[A-Za-z0-9_.-]+")


class AnswerError(Exception):
    """An answer that can't be taken; the text says why and what can."""


@dataclass(frozen=True)
class Field:
    """A field of a question's form.

    Attributes:
        name: its name.
        label: what it asks.
        choices: what may be chosen, the value and what it means.
        default: what the written rule answers.
    """

    name: str
    label: str
    choices: Mapping[str, str]
    default: str


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        id: its id: the run, the step and the kind.
        kind: what it is about: `training`, `half_way`, `evaluation`, `change`.
        title: the question, a sentence.
        text: what a person must know to answer it.
        evidence: figures, a line each.
        fields: the form.
    """

    id: str
    kind: str
    title: str
    text: str
    evidence: Sequence[str]
    fields: Sequence[Field]

    @property
    def digest(self) -> str:
        """Digest of all that is asked: an answer to another plan is none to this one."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values, with its digest."""
        return {**asdict(self), "digest": self.digest}

    @staticmethod
    def of(value: Mapping[str, Any]) -> "Question":
        """Return a question from what `plain` has made of it."""
        fields = [Field(**each) for each in value["fields"]]
        return Question(value["id"], value["kind"], value["title"], value["text"], list(value["evidence"]), fields)


class Answers:
    """The answers of a task's run, a file each.

    Args:
        folder: folder that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, question: Question) -> dict[str, Any] | None:
        """Return the answer to a question: `values` and `by`; None where there is none yet.

        Raises:
            AnswerError: somebody has answered another plan under the same id.
        """
        path = self._path(question.id)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["digest"] != question.digest:
            raise AnswerError(f"{path} answers another plan than the one that is asked about now; move it away")
        return found

    def give(self, question: Question, values: Mapping[str, str], by: str, digest: str | None = None) -> dict[str, Any]:
        """Answer a question.

        Args:
            question: the question.
            values: of the form; fields that are left out have their defaults.
            by: who answers, `person` or `rule`.
            digest: digest of the question that was seen; None where it is this one.

        Returns:
            The answer.

        Raises:
            AnswerError: another plan was seen, a field or a value is none of the form's, or it is answered already.
        """
        if digest is not None and digest != question.digest:
            raise AnswerError(f"{question.id} has changed since it was shown; look at it again")
        fields = {field.name: field for field in question.fields}
        for name, value in values.items():
            if name not in fields:
                raise AnswerError(
                    f"{question.id} has no field {name}; its form has {', '.join(fields)}{meant(name, fields)}"
                )
            if value not in fields[name].choices:
                allowed = fields[name].choices
                raise AnswerError(
                    f"{name} = {value!r} can't be chosen{meant(value, allowed)}; there are {', '.join(allowed)}"
                )
        whole = {name: values.get(name, field.default) for name, field in fields.items()}
        answer = {"question": question.id, "digest": question.digest, "values": whole, "by": by}
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(question.id)
        # Written whole beside it, then linked: of two who answer at a time one is told that it was late.
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
        sync(new)
        try:
            os.link(new, path)
        except FileExistsError:
            raise AnswerError(f"{question.id} has been answered already") from None
        finally:
            new.unlink()
        sync(self._folder)
        return answer

    def _path(self, key: str) -> Path:
        if not _ID.fullmatch(key):
            raise AnswerError(f"{key!r} is no question's id")
        return self._folder / f"{key}.json"
