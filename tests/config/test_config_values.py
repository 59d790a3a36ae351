"""From text to type and back, for every kind of field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from annotated_types import Ge, Gt, Interval, Len, Lt, MinLen, MultipleOf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator
from typing_extensions import TypeAliasType

from config import ConfigError, ConfigParser
from config.config_values import BadValue, read_value
from config.config_wording import type_text

HERE = Path("/here")


def even(value: int) -> int:
    if value % 2:
        raise ValueError("is odd")
    return value


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "5", 5),
        (int, "-5", -5),
        (int, '"5"', 5),
        (float, "3e-4", 3e-4),
        (float, "5", 5.0),
        *[(bool, text, True) for text in ("true", "True", "yes", "on", "1", '"true"')],
        *[(bool, text, False) for text in ("false", "FALSE", "no", "off", "0")],
        (str, "", ""),
        (str, "a b", "a b"),
        (str, '" a # b "', " a # b "),
        (str, '"say ""hi"""', 'say "hi"'),
        (str, "'a' b", "'a' b"),
        (str, 'a\n" b"\n""', "a\n b\n"),
        (str, "none", "none"),
        (Path, "a/b", HERE / "a/b"),
        (Path, "/a", Path("/a")),
        (Path, '"a # b"', HERE / "a # b"),
        (int | None, "none", None),
        (Optional[int], "None", None),  # noqa: UP045 - the older spelling is what is tested
        (int | None, "", None),
        (int | None, "5", 5),
        (str | None, '"none"', "none"),
        (str | None, '""', ""),
        (Path | None, "a", HERE / "a"),
        (Annotated[int | None, Gt(0)], "none", None),
        (Annotated[int | None, Gt(0)], "5", 5),
        (int | str, "5", 5),
        (str | int, "5", 5),
        (int | str, '"5"', "5"),
        (float | Literal["auto"], "auto", "auto"),
        (Literal["a", "b"], "b", "b"),
        (Literal["a b"], '"a b"', "a b"),
        (Literal[1, 2, None, True], "2", 2),
        (Literal[1, 2, None, True], "none", None),
        (Literal["x", True], "yes", True),
        (Literal[1, "1"], '"1"', "1"),
        (list[int], "1, 2", [1, 2]),
        (list[int], "[1, 2,]", [1, 2]),
        (list[int], "[]", []),
        (list, "a, b", ["a", "b"]),
        (list[str], '"a, b"\nc', ["a, b", "c"]),
        (list[bool], "yes, no", [True, False]),
        (list[Path], "a, /b", [HERE / "a", Path("/b")]),
        (list[int] | None, "none", None),
        (list[int | None], "1, none", [1, None]),
        (tuple[int, ...], "(1, 2, 3)", (1, 2, 3)),
        (tuple[int, str], "1, x", (1, "x")),
        (tuple[Path, ...], "a", (HERE / "a",)),
        (Annotated[list[Annotated[int, Gt(0)]], MinLen(2)], "1, 2", [1, 2]),
        (Annotated[int, AfterValidator(even)], "4", 4),
        (complex, "1j", 1j),
    ],
)
def test_read(hint: Any, text: str, value: Any) -> None:
    got = read_value(hint, text, HERE)
    assert got == value
    assert type(got) is type(value)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read_value(list[Path], "~/a, b", HERE) == [Path("/home/me/a"), HERE / "b"]


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (int, "x", "must be an integer"),
        (int, "1\n2", "must be an integer"),
        (int, "inf", "must be an integer"),
        (float, "inf", "must be a finite number"),
        (bool, "t", "must be true or false"),
        (bool, "", "must be true or false"),
        (Path, "", "must be a path"),
        (Path, '""', "must be a path; it is empty"),
        (Path, "a\nb", "must be a path on one line"),
        (Path, "~no_such_user_here/x", "must be a path; the home folder in '~no_such_user_here/x' is not known"),
        (Annotated[int, Ge(0), Lt(5)], "5", "must be an integer greater than or equal to 0 and less than 5"),
        (Annotated[float, Interval(ge=0, le=1)], "2",
         "must be a finite number greater than or equal to 0 and less than or equal to 1"),
        (Annotated[int, MultipleOf(8)], "9", "must be an integer divisible by 8"),
        (Annotated[str, Len(2, 3)], "abcd", "must be text of at least 2 characters and of at most 3 characters"),
        (Annotated[int | None, Gt(0)], "0", "must be an integer greater than 0 or none"),
        (Annotated[int, Gt(0)] | None, "0", "must be an integer greater than 0 or none"),
        (int | Literal["auto"], "x", "must be an integer or one of auto"),
        (Literal["a", 1, None, True], "b", "must be one of a, 1, none, true"),
        (list[int], "", "must be integers separated by commas; write [] for none"),
        (list[int], "1, x", "item 2 ('x') must be an integer"),
        (list[int] | None, "1, x", "item 2 ('x') must be an integer"),
        (list[int], "1,,2", 'has an empty item; write "" for empty text; it must be integers separated by commas'),
        (Annotated[list[int], MinLen(2)], "1", "must be integers separated by commas, at least 2 items"),
        (list[Annotated[int, Gt(0)]], "0", "item 1 ('0') must be an integer greater than 0"),
        (list[Literal["a", "b"]], "[", "has brackets that do not match; it "
         "must be values, each one of a, b separated by commas"),
        (tuple[float, float], "0.9", "must be 2 values separated by commas (a finite number, a finite number)"),
        (tuple[int, str], "x, 1", "item 1 ('x') must be an integer"),
        (Annotated[int, AfterValidator(even)], "3", "must be an integer (Value error, is odd)"),
        (dict[str, int], "a", "must be dict[str, int]"),
    ],
)  # fmt: skip
def test_refuse(hint: Any, text: str, message: str) -> None:
    with pytest.raises(BadValue) as caught:
        read_value(hint, text, HERE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (Annotated[float, Gt(0)], "float > 0"),
        (Annotated[float, Interval(gt=0, lt=1)], "float > 0 and < 1"),
        (Annotated[int, Gt(0)] | None, "int > 0 or none"),
        (Annotated[int | None, Gt(0)], "int > 0 or none"),
        (Literal["auto", "fp32"], "one of auto, fp32"),
        (Path, "path"),
        (list[Annotated[float, Ge(0)]], "list of float >= 0"),
        (Annotated[list[int], Len(1, 3)], "list of int (length >= 1 and length <= 3)"),
        (tuple[int, ...], "tuple of int"),
        (tuple[float, str], "tuple of float, str"),
    ],
)
def test_type_text(hint: Any, text: str) -> None:
    assert type_text(hint) == text


def test_named_type() -> None:
    rate = TypeAliasType("rate", Annotated[float, Gt(0)])  # what `type rate = ...` makes from python 3.12 on
    assert type_text(rate) == "float > 0"
    assert read_value(rate, "0.5", HERE) == 0.5
    with pytest.raises(BadValue, match="must be a finite number greater than 0"):
        read_value(rate, "0", HERE)


# ---- dump ------------------------------------------------------------------------------------------------------------


@dataclass
class EverythingConfig:
    number: int = 5
    rate: float = 1e-3
    flag: bool = True
    text: str = ""
    maybe: str | None = None
    mixed: int | str = 0
    choice: Literal["a", 1, None] = "a"
    folder: Path = Path("/x")
    sizes: list[int] = field(default_factory=list)
    names: tuple[str, ...] = ()
    pair: tuple[float, str] = (0.9, "x")
    holes: list[int | None] = field(default_factory=list)


def read_back(ini: Callable[..., Path], instance: EverythingConfig) -> EverythingConfig:
    ConfigParser.reset()  # files of one size that are written within one tick of the clock look alike
    ini(ConfigParser.dump(instance))
    return ConfigParser.get(EverythingConfig)


def test_dump_is_readable(ini: Callable[..., Path]) -> None:
    instance = EverythingConfig(
        text="a # b", maybe="none", mixed="5", sizes=[1, 2], names=("a", "b, c"), folder=Path("/x y"), holes=[1, None]
    )
    assert ConfigParser.dump(instance) == (
        '[Everything]\nnumber = 5\nrate = 0.001\nflag = true\ntext = "a # b"\nmaybe = "none"\nmixed = "5"\n'
        'choice = a\nfolder = /x y\nsizes = 1, 2\nnames = a, "b, c"\npair = 0.9, x\nholes = 1, none\n'
    )
    assert read_back(ini, instance) == instance


LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
SPIKY = st.text(st.sampled_from("a1 \"'#;,[]()=%~"), max_size=8)
TEXT = st.one_of(LINE, SPIKY, st.lists(SPIKY, max_size=3).map("\n".join), st.sampled_from(["none", "1", "true"]))
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
EVERYTHING = st.builds(
    EverythingConfig,
    number=st.integers(),
    rate=FLOAT,
    flag=st.booleans(),
    text=TEXT,
    maybe=st.none() | TEXT,
    mixed=st.integers() | TEXT,
    choice=st.sampled_from(["a", 1, None]),
    folder=st.sampled_from([Path("/x"), Path("/a b"), Path("/a #b, c")]),
    sizes=st.lists(st.integers(), max_size=3),
    names=st.lists(LINE | SPIKY, max_size=3).map(tuple),
    pair=st.tuples(FLOAT, LINE | SPIKY),
    holes=st.lists(st.none() | st.integers(), max_size=3),
)


def test_dump_reads_back_equal(ini: Callable[..., Path]) -> None:
    @settings(derandomize=True, deadline=None, max_examples=300, database=None)
    @given(instance=EVERYTHING)
    def check(instance: EverythingConfig) -> None:
        assert read_back(ini, instance) == instance

    check()


def test_dump_makes_paths_absolute(ini: Callable[..., Path]) -> None:
    path = ini("")
    assert f"folder = {path.parent}/runs\n" in ConfigParser.dump(EverythingConfig(folder=Path("runs")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "x"}, "[Everything] number = 'x' cannot be written: must be an integer"),
        ({"rate": float("inf")}, "[Everything] rate = 'inf' cannot be written: must be a finite number"),
        ({"text": "a\rb"}, "[Everything] text = 'a\\rb' cannot be written: holds characters that an ini file cannot"),
        ({"names": ("a\nb",)}, "[Everything] names = \"('a\\\\nb',)\" cannot be written: has the item '\"a', "
         "whose quotes do not match; it must be texts separated by commas"),
        ({"text": "\udcff"}, "[Everything] text = '\\udcff' cannot be written: "
         "holds characters that an ini file cannot"),
    ],
)  # fmt: skip
def test_dump_refuses_what_would_not_read_back(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ConfigParser.dump(EverythingConfig(**change))
    assert caught.value.problems == [message]
