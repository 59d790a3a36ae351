"""Any text is either refused with a ConfigError or read, and what is read has no key that nobody declared."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Gt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import BaseTrainerConfig, ConfigError, ConfigParser
from config.ini_reader import parse_ini


@dataclass(kw_only=True)
class FuzzTrainerConfig(BaseTrainerConfig):
    hidden_dim: Annotated[int, Gt(0)]
    mode: Literal["sum", "mean"] = "sum"
    note: str = ""
    sizes: list[int] = field(default_factory=list)
    names: tuple[str, ...] = ()
    weights: Path | None = None
    rate: float | Literal["auto"] = "auto"


CLASSES = {"BaseTrainer": BaseTrainerConfig, "FuzzTrainer": FuzzTrainerConfig}
VALID = """\
; One trainer.
[FuzzTrainer]
hidden_dim = 64
mode = mean
sizes =
    1, 2
    # a comment
    3
names = a, 'b # c', d
weights = none
rate = 0.5

seed = 3
note = 50% of "it"
[BaseTrainer]
# Settings of all trainers.
epochs = 5                # passes
batch_size = 16
learning_rate = 3e-4      ; step
artifacts_dir = runs/new
device = cpu
plot_at_end = no
"""
FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LINES = VALID.encode().split(b"\n")
line_number = st.integers(0, len(LINES) - 1)
# Syntax comes up more often than it would by chance.
FRAGMENTS = st.sampled_from(
    ["[", "]", "=", "#", ";", '"', "'", "\n", "\r\n", "\t", " ", ",", "%", "[BaseTrainer]", "\n[FuzzTrainer]\n",
     "epochs", "epochs = 3", "seed=1", "\n  x = 1", "note = ", "[DEFAULT]", "none", "\ufeff", "\x0b", "\u2028", "\0"]
)  # fmt: skip
RANDOM_TEXT = st.lists(FRAGMENTS | st.text(max_size=4), max_size=30).map("".join)


def declared_or_refused(path: Path, data: bytes) -> bool:
    """Read the bytes as settings; whether they were accepted. Fails on anything between yes and no."""
    path.write_bytes(data)
    ConfigParser.reset()  # two texts of one size within one tick of the clock look alike to the cache
    ConfigParser.use(path)
    try:
        config = ConfigParser.get(FuzzTrainerConfig)
    except ConfigError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)
        return False
    assert isinstance(config, FuzzTrainerConfig)
    keys = keys_by_plain_scan(data)
    for section, key in keys:
        assert section in CLASSES, f"[{section}] was accepted"
        assert key in {each.name for each in fields(CLASSES[section])}, f"{key} of [{section}] was accepted"
    assert len(set(keys)) == len(keys), "a duplicate was accepted"
    # None was swallowed by the value of another, or read into the section of another.
    assert keys == [(entry.section, entry.key) for entry in parse_ini(data).entries]
    return True


def keys_by_plain_scan(data: bytes) -> list[tuple[str, str]]:
    """Every (section, key) that a person would see, by a scan that knows nothing of the program's reader."""
    found, section = [], ""
    # splitlines also splits at the exotic separators that some editors show as line ends.
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
        line = line.strip()
        if not line or line[0] in "#;'\"":
            continue
        header = re.match(r"\[\s*(\w[\w ]*?)\s*\]\s*(?:[#;].*)?$", line)
        before_comment = re.split(r"\s[#;]", line)[0]
        if header and not header[1][0].isdigit():
            section = header[1]
        elif "=" in before_comment:
            found.append((section, before_comment.split("=")[0].strip()))
    return found


@pytest.fixture
def path(tmp_path: Path, only_base: None) -> Path:
    return tmp_path / "fuzz.ini"


def test_the_scan_sees_the_keys_of_the_valid_file(path: Path) -> None:
    assert declared_or_refused(path, VALID.encode())
    keys = [f"{section}.{key}" for section, key in keys_by_plain_scan(VALID.encode())]
    assert keys[:2] == ["FuzzTrainer.hidden_dim", "FuzzTrainer.mode"]
    assert keys[-2:] == ["BaseTrainer.device", "BaseTrainer.plot_at_end"]
    assert len(keys) == 14


def test_random_text(path: Path) -> None:
    @settings(FUZZ, max_examples=700)
    @given(text=RANDOM_TEXT, prefix=st.sampled_from(["", "[FuzzTrainer]\nhidden_dim = 1\n"]))
    def check(text: str, prefix: str) -> None:
        declared_or_refused(path, (prefix + text).encode("utf-8", errors="surrogatepass"))

    check()


def test_random_bytes(path: Path) -> None:
    @settings(FUZZ, max_examples=200)
    @given(data=st.binary(max_size=60), prefix=st.sampled_from([b"", b"[FuzzTrainer]\nhidden_dim = 1\n"]))
    def check(data: bytes, prefix: bytes) -> None:
        declared_or_refused(path, prefix + data)

    check()


def test_flipped_bytes(path: Path) -> None:
    outcomes = set()

    @settings(FUZZ, max_examples=700)
    @given(flips=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=3))
    def check(flips: list[tuple[int, int]]) -> None:
        data = bytearray(VALID.encode())
        for position, byte in flips:
            data[position] = byte
        outcomes.add(declared_or_refused(path, bytes(data)))

    check()
    assert outcomes == {True, False}  # else the mutations say nothing


def mutate(lines: list[bytes], kind: str, a: int, b: int) -> list[bytes]:
    """One whole-line mutation of a valid file."""
    lines = list(lines)
    if kind == "drop":
        del lines[a]
    elif kind == "duplicate":
        lines.insert(b, lines[a])
    elif kind == "swap":
        lines[a], lines[b] = lines[b], lines[a]
    elif kind == "rename":
        lines[a] = lines[a].replace(b"e", b"a", 1)
    elif kind == "case":
        lines[a] = lines[a].swapcase()
    elif kind == "indent":
        lines[a] = b"    " + lines[a]
    elif kind == "dedent":
        lines[a] = lines[a].lstrip()
    elif kind == "join":
        separator = SEPARATORS[b % len(SEPARATORS)].encode()
        lines[a : a + 2] = [separator.join(lines[a : a + 2])]
    return lines


# Some of them are line breaks to some editors.
SEPARATORS = [" ", "", "\r", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\u00a0"]
KINDS = ["drop", "duplicate", "swap", "rename", "case", "indent", "dedent", "join"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_single_line_mutation(path: Path, kind: str) -> None:
    """Each different one once: lines swapped either way are the same, and lines are joined by one of the separators."""
    for a in range(len(LINES)):
        second = {"duplicate": range(len(LINES)), "swap": range(a + 1, len(LINES)), "join": range(len(SEPARATORS))}
        for b in second.get(kind, [0]):
            declared_or_refused(path, b"\n".join(mutate(LINES, kind, a, b)))


def test_several_line_mutations(path: Path) -> None:
    @settings(FUZZ, max_examples=700)
    @given(steps=st.lists(st.tuples(st.sampled_from(KINDS), line_number, line_number), min_size=1, max_size=4))
    def check(steps: list[tuple[str, int, int]]) -> None:
        lines = LINES
        for kind, a, b in steps:
            lines = mutate(lines, kind, min(a, len(lines) - 1), min(b, len(lines) - 1))
        declared_or_refused(path, b"\n".join(lines))

    check()


def test_renamed_or_recased_keys_are_never_accepted(path: Path) -> None:
    names = {each.name for config_class in CLASSES.values() for each in fields(config_class)}
    for number, line in enumerate(LINES):
        key = line.split(b"=")[0].strip()
        if key.decode() not in names:
            continue
        for wrong in (key + b"s", key[1:], key.upper(), key.capitalize(), key.replace(b"_", b"-") + b"-"):
            changed = [*LINES[:number], line.replace(key, wrong, 1), *LINES[number + 1 :]]
            assert not declared_or_refused(path, b"\n".join(changed)), wrong


def test_random_overrides(ini: Callable[..., Path]) -> None:
    path = ini(VALID)
    ConfigParser.get(FuzzTrainerConfig)

    @settings(FUZZ, max_examples=300)
    @given(overrides=st.lists(st.text(max_size=6) | RANDOM_TEXT | st.just("epochs=2"), max_size=3))
    def check(overrides: list[str]) -> None:
        ConfigParser.use(path, overrides, "FuzzTrainer")
        try:
            ConfigParser.get(FuzzTrainerConfig)
        except ConfigError as error:
            assert all(problem.startswith("command line: ") for problem in error.problems)
            return
        declared = {each.name for each in fields(FuzzTrainerConfig)}
        assert {override.split("=")[0].strip() for override in overrides} <= declared

    check()
