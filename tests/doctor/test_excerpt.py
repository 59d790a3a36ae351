"""What is kept of a text that is too long."""

import tracemalloc

from doctor.failure.excerpt import BLOCK, GAP, decoded, excerpt, is_binary


def blocks(count, line):
    block = (line * (BLOCK // len(line) + 1))[:BLOCK]
    for _ in range(count):
        yield block


def test_a_short_text_stays_whole():
    assert excerpt(["a\n", "b\n"], 100) == ("a\nb\n", False)


def test_beginning_errors_and_end_are_kept_in_bounded_memory():
    def stream():
        yield "first line\n"
        yield from blocks(8, "step 1 loss 0.5\n")
        yield "Traceback (most recent call last):\nValueError: in the middle\n"
        yield from blocks(8, "2 RuntimeError: again and again\n")
        yield "last line\n"

    tracemalloc.start()
    text, cut = excerpt(stream(), 400_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cut
    assert text.startswith("first line\n")
    assert text.endswith("last line\n")
    assert "ValueError: in the middle" in text
    assert GAP in text
    assert len(text) <= 410_000
    assert peak < 16 * BLOCK


def test_lines_without_an_end_are_cut():
    text, cut = excerpt(blocks(6, "x"), 100_000)
    assert cut
    assert len(text) <= 110_000


def test_encodings_are_told_by_their_beginning():
    text = "Trace ─── ü\nline\n" * 20
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        data = text.encode(encoding)
        cut = [data[at : at + 101] for at in range(0, len(data), 101)]
        assert "".join(decoded(cut)) == text, encoding


def test_binary_is_no_text():
    assert is_binary("\x00\x01\x02" * 100)
    assert not is_binary("\x1b[31mred\x1b[0m\r\n\ttext é")
