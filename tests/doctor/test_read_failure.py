"""What a pasted traceback, a log or a few words tell of a failure."""

import subprocess
import sys

import pytest
from failure_texts import CHAIN, LOGS, Told

from doctor.failure.facts import Failure
from doctor.failure.read import read_failure, read_failure_file


def lines_of(failure: Failure) -> list[str]:
    return [one.line.split("\n")[0] for one in failure.raised]


@pytest.mark.parametrize("told", LOGS, ids=lambda told: told.name)
def test_what_failed_is_read_in_order_of_time(told: Told):
    failure = read_failure(told.text)
    found = lines_of(failure)
    assert len(found) == len(told.raised), found
    for line, expected in zip(found, told.raised, strict=True):
        assert line.startswith(expected)
    assert failure.kind == told.kind
    assert failure.importer == told.importer
    assert failure.cut == told.cut


AROUND = {
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "colours": lambda text: "\n".join(f"\x1b[31m{line}\x1b[0m" for line in text.split("\n")),
    "times": lambda text: "\n".join(f"2024-05-01T10:00:00.123456Z {line}" for line in text.split("\n")),
    "bars": lambda text: " 10%|#  | 1/9 [00:01<00:09, 1.1it/s]\r 20%|## | 2/9 [00:02<00:08, 1.1it/s]\n" + text,
}


@pytest.mark.parametrize("around", AROUND)
def test_what_is_put_around_changes_nothing(around):
    """Each with every third text."""
    for told in LOGS[sorted(AROUND).index(around) % 3 :: 3]:
        plain, changed = read_failure(told.text), read_failure(AROUND[around](told.text))
        assert [one.line for one in changed.raised] == [one.line for one in plain.raised], told.name
        assert changed.importer == plain.importer, told.name
        assert changed.kind == plain.kind, told.name


@pytest.mark.parametrize(
    "put",
    [
        lambda line: f"[rank3]: {line}",
        lambda line: f"(EngineCore pid=12) ERROR 08-01 12:00:00 [core.py:700] {line}",
        lambda line: f"(RayWorkerWrapper pid=9, ip=10.0.0.1) {line}",
        lambda line: f"Aug 17 18:42:18 host vllm[8052]: {line}",
        lambda line: f"trainer-1  | {line}",
        lambda line: f"0: {line}",
        lambda line: f"#12 1.234 {line}",
        lambda line: f"[pod/trainer-0/main] {line}",
        lambda line: f"stderr: {line}",
        lambda line: f"> {line}",
        lambda line: f"        {line}" if line else line,
        lambda line: line.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;"),
    ],
    ids=["rank", "vllm", "ray", "journal", "compose", "srun", "build", "pod", "stderr", "quote", "indent", "html"],
)  # fmt: skip
def test_prefixes_of_each_line_are_taken_off(put):
    failure = read_failure("\n".join(put(line) for line in CHAIN.rstrip("\n").split("\n")))
    assert lines_of(failure) == lines_of(read_failure(CHAIN))
    assert failure.importer == "transformers"
    assert [len(one.frames) for one in failure.raised] == [2, 1]
    assert failure.first.frames[0].code.startswith("return importlib")
    assert failure.first.then == "cause"


def test_frames_have_their_modules_lines_and_code():
    failure = read_failure(CHAIN)
    outer, inner = failure.first.frames
    assert (outer.module, outer.line, outer.function) == ("transformers", 1390, "_get_module")
    assert outer.code == 'return importlib.import_module("." + module_name, self.__name__)'
    assert inner.module is None  # the standard library
    assert failure.raised[1].frames[0].file == "/home/me/train.py"
    assert failure.raised[1].frames[0].module is None


def test_each_beginning_and_end_of_a_text_is_read():
    """Whatever is missing, nothing is raised; and as long as the last line is there, the last error is the same."""
    last = read_failure(CHAIN).raised[-1].line
    for at in range(0, len(CHAIN), 7):
        read_failure(CHAIN[:at])
    body = CHAIN.index("RuntimeError: ")
    for at in range(0, body + 1, 7):
        failure = read_failure(CHAIN[at:])
        assert failure.raised[-1].line == last, CHAIN[at : at + 60]
    assert read_failure(CHAIN[: CHAIN.index("ImportError")]).cut
    assert read_failure(CHAIN[CHAIN.index("  File") :]).cut
    assert not read_failure(CHAIN).cut


def test_interleaved_processes_are_told_apart():
    lines = CHAIN.rstrip("\n").split("\n")
    failure = read_failure("\n".join(f"[rank{rank}]: {line}" for line in lines for rank in (0, 1)))
    assert lines_of(failure) == lines_of(read_failure(CHAIN))
    assert failure.first.process == "rank0"


def test_a_long_log_keeps_what_matters():
    noise = "".join(f"2024-01-01 00:00:{at % 60:02d} INFO step {at} loss 0.{at % 97}\n" for at in range(30_000))
    half = len(noise) // 2
    failure = read_failure(noise[:half] + CHAIN + noise[half:] + "KeyError: 'labels'\n")
    assert lines_of(failure)[0] == "ImportError: cannot import name 'x' from 'y'"
    assert lines_of(failure)[-1] == "KeyError: 'labels'"
    assert failure.cut
    assert len(failure.text) < 250_000


def test_a_file_and_standard_input_are_streamed(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    path.write_bytes(CHAIN.encode("utf-16"))
    assert lines_of(read_failure_file(str(path))) == lines_of(read_failure(CHAIN))
    code = "from doctor.failure.read import read_failure_file as r; print(r('-').importer)"
    run = subprocess.run([sys.executable, "-c", code], input=CHAIN, capture_output=True, text=True, check=True)
    assert run.stdout == "transformers\n"
    with pytest.raises(OSError):
        read_failure_file(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x01" * 5000, bytes(range(256)) * 40, "\ud800", "x", b"\xff\xfe", "\n" * 5000, "🙂"]
)
def test_nothing_raises(data):
    failure = read_failure(data)
    assert failure.raised == ()


def test_binary_is_called_so():
    failure = read_failure(bytes(range(256)) * 400)
    assert failure.kind == "log"
    assert "no text" in failure.lines[0]


def test_credentials_are_in_nothing_that_is_read():
    secret = "hf_AbCdEf1234567890abcd"
    text = f"HF_TOKEN={secret} python train.py\n" + CHAIN.replace(
        "name 'x'", f"name 'x' https://me:hunter2@host {secret}"
    )
    shown = repr(read_failure(text))
    assert secret not in shown
    assert "hunter2" not in shown


def test_what_is_no_error_is_silent():
    failure = read_failure("training loss 5x to 10x higher than with the previous release\ntransformers: 4.46.0\n")
    assert failure.kind == "silent"
    assert failure.raised == ()
    assert failure.lines[0].startswith("training loss")


def test_any_characters_in_any_order_are_read():
    """A hundred texts of pieces of all texts, in an order that is always the same."""
    pieces = [
        *sorted({line for told in LOGS for line in told.text.split("\n")}),
        "\r",
        "\x1b[",
        "│",
        '"""',
        "  | ",
        "\t",
        "> ",
        "```",
    ]
    state = 12345
    for _ in range(100):
        chosen = []
        for _ in range(25):
            state = (state * 1103515245 + 12345) % 2**31
            chosen.append(pieces[state // 65536 % len(pieces)])
        failure = read_failure("\n".join(chosen))
        assert not any("could not be read" in line for line in failure.lines), "\n".join(chosen)
