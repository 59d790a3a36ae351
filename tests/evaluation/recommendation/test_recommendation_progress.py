"""Progress on a terminal: lines that change and go."""

import io

from evaluation.recommendation import progress
from evaluation.recommendation.progress import ReadingProgress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_reading_is_told_on_a_terminal_where_it_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    terminal = Terminal()
    with ReadingProgress(terminal) as told:
        told.show(10, 2000)
        told.show(1500, 2000)
    shown = terminal.getvalue().split("\r\x1b[K")
    assert shown == ["", "reading images: 10 of 2,000", "reading images: 1,500 of 2,000", ""]


def test_short_readings_and_files_get_no_line(monkeypatch):
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr(progress, "_EVERY", 3600.0)
    with ReadingProgress(terminal) as told:
        told.show(10, 2000)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    with ReadingProgress(file) as told:
        told.show(10, 2000)
    assert terminal.getvalue() == file.getvalue() == ""
