"""A chat for programs: questions from the standard input, answers on the standard output and nothing else there.

A line of text is the next question of one conversation, as if it were typed, commands included. A line of JSON is a
conversation or a prompt of its own, and is answered by a line of JSON; several that wait are answered together.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from commands.chat.conversation import Answer, Chat, ChatError, question_in
from commands.chat.terminal import CommandError, Commands
from constants.counting import counted
from data.chat_messages import Completion, Example, RowError
from data.data_error import DataError
from llm.sample_result import Sample
from storage.errors import OutputError

OK, DATA = 0, 3
_TOGETHER = 64  # lines of JSON that are answered at a time


def answer_pipe(chat: Chat, compare: bool = False) -> int:
    """Answer what comes from the standard input, to its end.

    Args:
        chat: the conversation.
        compare: whether each answer of the conversation is followed by the base model's.

    Returns:
        The exit code: 3 where a line could not be answered.
    """
    pipe = _Pipe(chat, compare)
    try:
        return pipe.run()
    except BrokenPipeError:  # nobody reads the answers any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


class _Pipe:
    def __init__(self, chat: Chat, compare: bool) -> None:
        self._chat, self._failed = chat, 0
        self._commands = Commands(chat, _tell, compare)
        self._lines = _Lines()
        self._answers = self._tokens = 0

    def run(self) -> int:
        begin = time.perf_counter()
        for number, line in self._lines:
            if line.lstrip().startswith("{"):
                self._answer_rows([(number, line), *self._lines.waiting(_TOGETHER - 1)])
            elif line.strip() and self._take(number, line) == "quit":
                break
        seconds = time.perf_counter() - begin
        failed = f", {self._failed} could not be answered" if self._failed else ""
        _tell(f"{counted(self._answers, 'answer')}, {counted(self._tokens, 'token')} in {seconds:.1f} s{failed}")
        return DATA if self._failed else OK

    def _take(self, number: int, line: str) -> str | None:
        """Do what a line of text says."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                wanted = self._commands.do(line)
                if wanted == "retry":
                    self._write(lambda: self._chat.ask(self._chat.undo() or ""))
                elif wanted == "compare":
                    self._write(self._chat.base_answer)
                return wanted
            question = line.removeprefix("/") if line.startswith("//") else line
            self._write(lambda: self._chat.ask(question))
            if self._commands.compare:
                self._write(self._chat.base_answer)
        except (ChatError, CommandError, DataError, OutputError) as error:
            self._fail(number, str(error))
        return None

    def _write(self, answers: Callable[[], Iterator[tuple[str, Answer]]]) -> None:
        last: Answer | None = None
        for text, answer in answers():
            last = answer
            sys.stdout.write(_whole(text))
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
        for note in self._chat.notes:
            _tell(note)
        if last is not None:
            self._count(last.sample)
            if end := last.end_line():
                _tell(f"answer {self._answers}: {end}")

    def _answer_rows(self, lines: list[tuple[int, str]]) -> None:
        """Answer lines of JSON together, each by a line."""
        read = [_read_row(line) for _, line in lines]
        asked = [row for row in read if not isinstance(row, RowError)]
        answers = iter(self._chat.answer_rows([example for _, example in asked]))
        for (number, _), row in zip(lines, read, strict=True):
            answer = row if isinstance(row, RowError) else next(answers)
            if isinstance(answer, Sample):
                assert not isinstance(row, RowError)
                self._count(answer)
                written = _answered(*row, answer)
            else:
                self._fail(number, str(answer))
                written = {"error": str(answer)}
            sys.stdout.write(_whole(json.dumps(written, ensure_ascii=False)) + "\n")
        sys.stdout.flush()

    def _count(self, sample: Sample) -> None:
        self._answers += 1
        self._tokens += len(sample.tokens)

    def _fail(self, number: int, text: str) -> None:
        self._failed += 1
        _tell(f"error: line {number}: {text}")


class _Lines:
    """Lines of the standard input, read by a thread, so that it is known which ones wait."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[int, str] | None] = queue.Queue(maxsize=4 * _TOGETHER)
        self._next: tuple[int, str] | None = None
        self._ended = False
        threading.Thread(target=self._fill, daemon=True).start()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while True:
            line, self._next = self._next, None
            if line is None:
                line = None if self._ended else self._queue.get()
            if line is None:
                return
            yield line

    def waiting(self, most: int) -> Iterator[tuple[int, str]]:
        """Yield further lines of JSON that are there already."""
        for _ in range(most):
            try:
                line = self._queue.get_nowait()
            except queue.Empty:
                return
            if line is None:
                self._ended = True
                return
            if not line[1].lstrip().startswith("{"):
                self._next = line
                return
            yield line

    def _fill(self) -> None:
        try:
            for number, line in enumerate(sys.stdin.buffer, 1):
                self._queue.put((number, line.decode("utf-8", "surrogateescape").rstrip("\r\n")))
        finally:
            self._queue.put(None)


def _read_row(line: str) -> "tuple[dict[str, Any], Example] | RowError":
    try:
        value = json.loads(line)
        return value, question_in(value)
    except ValueError as error:  # a RowError is one
        return error if isinstance(error, RowError) else RowError("no JSON", str(error))


def _answered(value: dict[str, Any], example: Example, sample: Sample) -> dict[str, Any]:
    """Return a row with its answer: such as training reads."""
    if isinstance(example, Completion):
        return {**value, "completion": sample.text, "finish": sample.finish}
    asked = value["messages"] if "messages" in value else value["prompt"]
    kept = asked[: len(getattr(example, "messages", asked))]
    rest = {name: part for name, part in value.items() if name not in ("messages", "prompt", "completion")}
    answer = {"role": "assistant", "content": sample.text}
    return {"messages": [*kept, answer], **rest, "finish": sample.finish}


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
