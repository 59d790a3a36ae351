"""Where a value comes from, what is refused, and the exact text of each message."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt

from config import BaseTrainerConfig, ConfigError, ConfigParser


@dataclass
class MiddleConfig(BaseTrainerConfig):
    epochs: Annotated[int, Gt(0)] = 7
    width: Annotated[int, Ge(8)] = 16


@dataclass(kw_only=True)
class LeafTrainerConfig(MiddleConfig):
    hidden_dim: Annotated[int, Gt(0)]
    mode: Literal["sum", "mean"] = "sum"
    weights: Path | None = None


@dataclass
class StrictTrainerConfig(BaseTrainerConfig):
    batch_size: Annotated[int, Gt(1)]


@dataclass
class PairTrainerConfig(BaseTrainerConfig):
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be less than\nhigh = {self.high}")


LEAF = "[LeafTrainer]\nhidden_dim = 4\n"


# ---- where values come from ------------------------------------------------------------------------------------------


def test_section_is_the_class_name_less_config(ini: Callable[..., Path]) -> None:
    ini(LEAF)
    config = ConfigParser.get(LeafTrainerConfig)
    assert (config.hidden_dim, config.mode, config.batch_size) == (4, "sum", 32)


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("", 7),  # the default of Middle, not the 50 of the base
        ("[BaseTrainer]\nepochs = 3\n", 7),  # a class's own default goes before the section of its base
        ("[BaseTrainer]\nepochs = 3\n[Middle]\nepochs = 4\n", 4),
        ("[Middle]\nepochs = 4\n[LeafTrainer]\nepochs = 5\n", 5),
    ],
)
def test_most_specific_class_wins(ini: Callable[..., Path], text: str, epochs: int) -> None:
    ini(text + "[LeafTrainer]\n" * ("LeafTrainer" not in text) + "hidden_dim = 4\n")
    assert ConfigParser.get(LeafTrainerConfig).epochs == epochs


def test_inherited_key_comes_from_the_section_of_the_base(ini: Callable[..., Path]) -> None:
    ini("[BaseTrainer]\nbatch_size = 3\n" + LEAF)
    assert ConfigParser.get(LeafTrainerConfig).batch_size == 3


def test_required_key_may_come_from_the_section_of_a_base(ini: Callable[..., Path]) -> None:
    ini("[BaseTrainer]\nbatch_size = 3\n")
    assert ConfigParser.get(StrictTrainerConfig).batch_size == 3


@pytest.mark.parametrize("overrides", [["epochs=9", "mode = mean"], {"epochs": "9", "mode": "mean"}])
def test_overrides_go_before_the_file(ini: Callable[..., Path], overrides: object) -> None:
    ini("[LeafTrainer]\nhidden_dim = 4\nepochs = 5\n", overrides=overrides, section="LeafTrainer")
    config = ConfigParser.get(LeafTrainerConfig)
    assert (config.epochs, config.mode) == (9, "mean")
    assert ConfigParser.get(BaseTrainerConfig).epochs == 50  # they are for one section


def test_override_may_hold_what_would_be_a_comment_or_an_equals_sign(ini: Callable[..., Path]) -> None:
    ini(LEAF, overrides=["device=a # b = c"], section="LeafTrainer")
    assert ConfigParser.get(LeafTrainerConfig).device == "a # b = c"


def test_file_is_read_again_when_it_changes(ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = ini("[BaseTrainer]\nepochs = 3\n")
    assert ConfigParser.get(BaseTrainerConfig).epochs == 3
    with monkeypatch.context() as patch:
        patch.setattr("config.config_parser.read_ini", lambda path: pytest.fail("read although unchanged"))
        assert ConfigParser.get(BaseTrainerConfig).epochs == 3
    path.write_text("[BaseTrainer]\nepochs = 4\n")
    os.utime(path, ns=(0, 1))  # the size is the same, and the clock may be too coarse to tell the two writes apart
    assert ConfigParser.get(BaseTrainerConfig).epochs == 4


def test_reset_forgets_file_overrides_and_classes(ini: Callable[..., Path]) -> None:
    ini(LEAF, overrides=["epochs=9"], section="LeafTrainer")
    ConfigParser.get(LeafTrainerConfig)
    assert set(ConfigParser.sections()) == {"BaseTrainer", "Middle", "LeafTrainer"}
    ConfigParser.reset()
    assert set(ConfigParser.sections()) == {"BaseTrainer"}
    ConfigParser.use(Path("config.ini"))
    assert ConfigParser.get(LeafTrainerConfig).epochs == 7


def test_parser_has_no_instances() -> None:
    with pytest.raises(TypeError, match=r"ConfigParser has no instances: call ConfigParser.get\(SomeConfig\)"):
        ConfigParser()


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_relative_paths_belong_to_the_file_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_base: None
) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "here").mkdir()
    path = tmp_path / "settings" / "my.ini"
    path.write_text(LEAF + "weights = w/a.bin\nartifacts_dir = ~/runs\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ConfigParser.use(Path("../settings/my.ini"))
    config = ConfigParser.get(LeafTrainerConfig)
    assert config.weights.is_absolute()
    assert config.weights.resolve() == tmp_path / "settings" / "w" / "a.bin"
    assert config.artifacts_dir == tmp_path / "home" / "runs"
    ConfigParser.use(Path("../settings/my.ini"), ["weights=w/b.bin"], "LeafTrainer")
    monkeypatch.chdir(tmp_path)  # the current folder is that of the command line, not a later one
    assert ConfigParser.get(LeafTrainerConfig).weights == tmp_path / "here" / "w" / "b.bin"


def test_relative_default_belongs_to_the_folder_of_the_file(ini: Callable[..., Path]) -> None:
    @dataclass
    class FolderConfig:
        folder: Path = Path("data")
        more: list[Path] = field(default_factory=lambda: [Path("a"), Path("/b")])

    path = ini("")
    config = ConfigParser.get(FolderConfig)
    assert config == FolderConfig(path.parent / "data", [path.parent / "a", Path("/b")])


@pytest.mark.parametrize(
    ("current", "given", "shown"),
    [
        ("a", "config.ini", "config.ini"),
        ("a", "{root}/a/config.ini", "config.ini"),
        (".", "{root}/a/config.ini", "a/config.ini"),
        ("b", "{root}/a/config.ini", "{root}/a/config.ini"),
        ("b", "../a/config.ini", "../a/config.ini"),
    ],
)
def test_how_a_message_shows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: Callable, current: str, given: str, shown: str
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "config.ini").write_text("[BaseTrainer]\nepochs = 0\n")
    monkeypatch.chdir(tmp_path / current)
    ConfigParser.use(Path(given.format(root=tmp_path)))
    [problem] = problems(ConfigParser.check)
    assert problem.startswith(shown.format(root=tmp_path) + ":2 [BaseTrainer] epochs = '0': ")


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("learing_rate = 1", "unknown key 'learing_rate'; did you mean 'learning_rate'?"),
        ("Epochs = 1", "unknown key 'Epochs'; did you mean 'epochs'?"),
        (
            "zzz = 1",
            "unknown key 'zzz'; known keys are 'epochs', 'batch_size', 'seed', 'validate_every_n_epochs', "
            "'monitor', 'monitor_mode', 'early_stopping_patience', 'early_stopping_min_delta', 'callbacks', "
            "'learning_rate', 'weight_decay', 'gradient_clip_value' and {more} more",
        ),
        ("epochs = many", "epochs = 'many': must be an integer greater than 0"),
        ("epochs = 0", "epochs = '0': must be an integer greater than 0"),
        ("epochs = 1.5", "epochs = '1.5': must be an integer greater than 0"),
        ("epochs =", "epochs = '': must be an integer greater than 0"),
        ("weight_decay = nan", "weight_decay = 'nan': must be a finite number greater than or equal to 0"),
        ("weight_decay = 1e999", "weight_decay = '1e999': must be a finite number greater than or equal to 0"),
        ("lr_decay_factor = 1", "lr_decay_factor = '1': must be a finite number greater than 0 and less than 1"),
        ("plot_at_end = maybe", "plot_at_end = 'maybe': must be true or false"),
        ("artifacts_dir =", "artifacts_dir = '': must be a path"),
    ],
)
def test_refused_line(ini: Callable[..., Path], problems: Callable, lines: str, expected: str) -> None:
    ini(f"[BaseTrainer]\n{lines}\n")
    expected = expected.format(more=len(BaseTrainerConfig.__dataclass_fields__) - 12)
    assert problems(ConfigParser.check) == [f"config.ini:2 [BaseTrainer] {expected}"]
    assert problems(ConfigParser.get, BaseTrainerConfig) == [f"config.ini:2 [BaseTrainer] {expected}"]


def test_a_key_and_a_value_apart_are_answered_with_both(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[LeafTrainer]\nhidden_dim = 4\n", overrides=["epochs", "3", "seed=1"], section="LeafTrainer")
    assert problems(ConfigParser.get, LeafTrainerConfig)[0] == "command line: 'epochs' is no key=value: write epochs=3"


def test_all_problems_of_the_file_and_the_command_line_at_once(ini: Callable[..., Path], problems: Callable) -> None:
    ini(
        "[BaseTrainer]\nepochs = many\nseed = -1\nseed = 2\n[LeafTrainr]\n[LeafTrainer]\nmode = max\nepohcs = 1\n",
        overrides=["learing_rate=3", "batch_size=0", "oops", "seed=1", "seed=2"],
        section="LeafTrainer",
    )
    assert problems(ConfigParser.get, LeafTrainerConfig) == [
        "config.ini:2 [BaseTrainer] epochs = 'many': must be an integer greater than 0",
        "config.ini:3 [BaseTrainer] seed = '-1': "
        "must be an integer greater than or equal to 0 and less than 4294967296",
        "config.ini:4 [BaseTrainer] duplicate key 'seed'; first at line 3",
        "config.ini:5 [LeafTrainr] unknown section; did you mean [LeafTrainer]?",
        "config.ini:7 [LeafTrainer] mode = 'max': must be one of sum, mean",
        "config.ini:8 [LeafTrainer] unknown key 'epohcs'; did you mean 'epochs'?",
        "command line: 'oops' is no key=value",
        "command line: duplicate key 'seed'",
        "command line: unknown key 'learing_rate'; did you mean 'learning_rate'?",
        "command line: batch_size = '0': must be an integer greater than 0",
        "config.ini:6 [LeafTrainer] missing key 'hidden_dim', which must be an integer greater than 0: "
        "add 'hidden_dim = ...' below line 6",
    ]


def test_missing_key_without_its_section(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[BaseTrainer]\n")
    assert problems(ConfigParser.get, LeafTrainerConfig) == [
        "config.ini [LeafTrainer] missing key 'hidden_dim', which must be an integer greater than 0: "
        "add 'hidden_dim = ...' in a section [LeafTrainer]"
    ]


def test_missing_keys_are_asked_of_one_section_only(ini: Callable[..., Path], problems: Callable) -> None:
    ini(LEAF)
    ConfigParser.get(LeafTrainerConfig)  # now its section is known
    ini("[LeafTrainer]\n")
    ConfigParser.check()
    assert ConfigParser.get(BaseTrainerConfig).epochs == 50
    ini("[LeafTrainer]\n", section="LeafTrainer")
    assert len(problems(ConfigParser.check)) == 1
    ini("[LeafTrainer]\n", overrides=["hidden_dim=3"], section="LeafTrainer")
    ConfigParser.check()


def test_key_of_a_child_is_unknown_in_the_section_of_its_base(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[Middle]\nhidden_dim = 3\n" + LEAF)
    [problem] = problems(ConfigParser.get, LeafTrainerConfig)
    assert problem.startswith("config.ini:2 [Middle] unknown key 'hidden_dim'; known keys are 'epochs', ")


def test_unknown_section_lists_the_known_ones(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[Zoo]\n")
    assert problems(ConfigParser.check) == ["config.ini:1 [Zoo] unknown section; known sections are [BaseTrainer]"]


def test_unknown_section_of_the_command_line(ini: Callable[..., Path], problems: Callable) -> None:
    ini("", overrides=["epochs=3"], section="BaseTrainr")
    assert problems(ConfigParser.check) == ["command line: [BaseTrainr] unknown section; did you mean [BaseTrainer]?"]


def test_overrides_need_a_section() -> None:
    with pytest.raises(ValueError, match=r"ConfigParser.use: overrides need the section that they are for"):
        ConfigParser.use(overrides=["epochs=3"])


def test_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: Callable) -> None:
    monkeypatch.chdir(tmp_path)
    ConfigParser.use(Path("config.ini"))
    assert problems(ConfigParser.get, LeafTrainerConfig) == ["config.ini cannot be read: no such file"]
    ConfigParser.use(tmp_path)
    assert problems(ConfigParser.check) == [". cannot be read: it is a folder, not a file"]


def test_child_may_be_stricter_than_the_section_of_its_base(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[BaseTrainer]\nbatch_size = 1\n")
    ConfigParser.check()
    assert problems(ConfigParser.get, StrictTrainerConfig) == [
        "config.ini:2 [BaseTrainer] batch_size = '1': must be an integer greater than 1 in [StrictTrainer]"
    ]


def test_post_init_error_names_the_section(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[PairTrainer]\nlow = 3\n")
    assert problems(ConfigParser.get, PairTrainerConfig) == [
        "config.ini [PairTrainer] low = 3 must be less than high = 1"
    ]


# ---- classes that would lose keys in silence -------------------------------------------------------------------------


def test_class_without_decorator(ini: Callable[..., Path], problems: Callable) -> None:
    class BareConfig(BaseTrainerConfig):
        hidden_dim: int = 3

    @dataclass
    class ChildConfig(BareConfig):
        pass

    ini("")
    assert problems(ConfigParser.get, BareConfig) == ["BareConfig is not a dataclass: put @dataclass above the class"]
    text = "ConfigParser.get takes a config class, such as DigitsTrainerConfig; given: 'BareTrainer'"
    assert problems(ConfigParser.get, "BareTrainer") == [text]
    assert problems(ConfigParser.get, ChildConfig) == [
        "BareConfig, a base of ChildConfig, is not a dataclass: put @dataclass above the class"
    ]


def test_default_without_type(ini: Callable[..., Path], problems: Callable) -> None:
    @dataclass
    class UntypedConfig(BaseTrainerConfig):
        epochs = 3

    ini("")
    assert problems(ConfigParser.get, UntypedConfig) == [
        "UntypedConfig sets 'epochs' without a type, which changes nothing: write 'epochs: <type> = ...'"
    ]


def test_default_that_its_own_type_forbids(ini: Callable[..., Path], problems: Callable) -> None:
    @dataclass
    class OddConfig:
        steps: Annotated[int, Gt(0)] = 0
        name: str = None

    ini("")
    assert problems(ConfigParser.get, OddConfig) == [
        "OddConfig: the default steps = '0' must be an integer greater than 0",
        "OddConfig: the default name = 'None' must be text; write its type as '... | None'",
    ]


def test_type_hint_that_cannot_be_read(ini: Callable[..., Path], problems: Callable) -> None:
    @dataclass
    class LostConfig:
        x: "Nowhere" = 1  # noqa: F821

    ini("")
    assert problems(ConfigParser.get, LostConfig) == [
        "LostConfig has a type hint that cannot be read: NameError: name 'Nowhere' is not defined"
    ]


# ---- peek ------------------------------------------------------------------------------------------------------------


def test_peek_resolves_one_key(ini: Callable[..., Path], problems: Callable) -> None:
    ini("[BaseTrainer]\nseed = 5\nepochs = wrong\n" + LEAF, overrides=["seed=6"], section="LeafTrainer")
    assert ConfigParser.peek("BaseTrainer", "seed") == 5
    assert ConfigParser.peek("LeafTrainer", "seed") == 6  # although the class is not known yet
    assert ConfigParser.peek("Other", "seed") == 5
    assert ConfigParser.peek("Other", "batch_size") == 32
    assert problems(ConfigParser.peek, "Other", "epochs") == [
        "config.ini:3 [BaseTrainer] epochs = 'wrong': must be an integer greater than 0"
    ]
    assert problems(ConfigParser.peek, "Other", "sed") == ["config.ini [Other] unknown key 'sed'; did you mean 'seed'?"]


def test_peek_reads_the_section_of_an_unknown_class(ini: Callable[..., Path]) -> None:
    ini("[BaseTrainer]\nseed = 5\n[Mine]\nseed = 7\n")
    assert ConfigParser.peek("Mine", "seed") == 7


def test_config_error_takes_one_message_or_several() -> None:
    assert ConfigError("a\nb").problems == ["a b"]
    assert str(ConfigError(["a", "b"])) == "a\nb"
