"""Each test gets its own folder with its own config.ini, and leaves no settings behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import BaseTrainerConfig, ConfigError, ConfigParser


@pytest.fixture(autouse=True)
def forget_settings() -> Iterator[None]:
    """The parser's state is the process's: end each test as if none had run."""
    yield
    ConfigParser.reset()


@pytest.fixture
def only_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no section but [BaseTrainer], whatever trainers the project has, so that lists in messages are exact."""
    monkeypatch.setattr("config.config_parser.discover", lambda: ({"BaseTrainer": BaseTrainerConfig}, []))


@pytest.fixture
def ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_base: None) -> Callable[..., Path]:
    """Write config.ini into a new current folder and use it: `ini("[BaseTrainer]\\nepochs = 3", overrides=...)`."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, **use: Any) -> Path:
        data = text if isinstance(text, bytes) else text.encode()
        Path("config.ini").write_bytes(data)
        ConfigParser.use(Path("config.ini"), **use)
        return tmp_path / "config.ini"

    return write


@pytest.fixture
def problems() -> Callable[..., list[str]]:
    """`problems(call, *args)`: the problems of the ConfigError that the call raises."""

    def collect(call: Callable[..., Any], *args: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            call(*args)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return caught.value.problems

    return collect
