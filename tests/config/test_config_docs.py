"""What `describe` reads from a config class's source."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from config import BaseTrainerConfig, ConfigParser
from config.config_docs import FieldDoc
from constants import PROJECT_ROOT


@dataclass(kw_only=True)
class ParentConfig:
    """The class's own docstring is nobody's field."""

    width: Annotated[int, Gt(0)]
    """Hidden units
    of each layer."""
    rate: Annotated[float, Ge(0)] = 0.5  # Share of units dropped, # included.
    """The docstring goes before the comment."""
    mode: Literal["sum", "mean"] = "sum"  # How layers are joined.
    sizes: list[int] = field(default_factory=lambda: [1, 2])  # One size a layer.
    note: str | None = None
    folder: Path = PROJECT_ROOT / "data"
    # A comment above a field is not read.
    text: str = " # "

    unrelated = 1  # not a field


@dataclass(kw_only=True)
class OffspringConfig(ParentConfig):
    rate: Annotated[float, Ge(0)] = 0.1
    width: Annotated[int, Gt(0)] = 8
    """Wider."""


def test_describe() -> None:
    assert ConfigParser.describe(ParentConfig) == [
        FieldDoc("width", "int > 0", "required", "Hidden units of each layer.", "ParentConfig"),
        FieldDoc("rate", "float >= 0", "0.5", "The docstring goes before the comment.", "ParentConfig"),
        FieldDoc("mode", "one of sum, mean", "sum", "How layers are joined.", "ParentConfig"),
        FieldDoc("sizes", "list of int", "1, 2", "One size a layer.", "ParentConfig"),
        FieldDoc("note", "str or none", "none", "", "ParentConfig"),
        FieldDoc("folder", "path", "data", "", "ParentConfig"),
        FieldDoc("text", "str", '" # "', "", "ParentConfig"),
    ]


def test_redeclared_field_names_its_class_and_keeps_the_meaning() -> None:
    docs = {doc.name: doc for doc in ConfigParser.describe(OffspringConfig)}
    rate = FieldDoc("rate", "float >= 0", "0.1", "The docstring goes before the comment.", "OffspringConfig")
    assert docs["rate"] == rate
    assert docs["width"] == FieldDoc("width", "int > 0", "8", "Wider.", "OffspringConfig")
    assert docs["mode"].declared_in == "ParentConfig"


def test_class_without_source_has_no_docs_but_all_keys() -> None:
    space: dict = {"dataclass": dataclass}
    exec("@dataclass\nclass MadeConfig:\n    x: int = 1\n    '''Lost.'''", space)
    assert ConfigParser.describe(space["MadeConfig"]) == [FieldDoc("x", "int", "1", "", "MadeConfig")]


def test_every_base_setting_is_documented() -> None:
    docs = ConfigParser.describe(BaseTrainerConfig)
    assert [doc.name for doc in docs] == [each.name for each in fields(BaseTrainerConfig)]
    assert [doc.name for doc in docs if not doc.doc] == []


def test_describe_refuses_a_class_without_decorator(problems: Callable) -> None:
    class PlainConfig(BaseTrainerConfig):
        pass

    assert problems(ConfigParser.describe, PlainConfig) == [
        "PlainConfig is not a dataclass: put @dataclass above the class"
    ]
