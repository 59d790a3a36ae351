"""Checkpoints that are damaged in any way are noticed before anything is taken from them; nothing is ever unpickled."""

import ast
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from storage.checkpoint_store import SCHEMA_VERSION, Checkpoint, CheckpointStore
from storage.errors import ResumeError
from storage.monitor import Monitor
from train.checkpointing.run_state import restore
from train.context import StatefulPart
from train.process_group import process_group

ROOT = Path(__file__).resolve().parents[2]
FILES = ("weights.safetensors", "state.safetensors", "state.json", "manifest.json")


class Reached(Exception):
    """The weights have come to load_state_dict."""


class Spy:
    """In the place of a model: keeps what is loaded into it."""

    def __init__(self) -> None:
        self.loaded: list[dict[str, torch.Tensor]] = []

    def load_state_dict(self, weights: dict[str, torch.Tensor]) -> None:
        self.loaded.append(weights)
        raise Reached


def content(value: float) -> Checkpoint:
    weights = {"w": torch.full((60,), float(value))}
    state = {"value": value, "optimizer": {"m": torch.arange(60.0) * value}, "random": tuple(range(60))}
    state |= {"record": {"progress": {"epoch": 1}}, "position": {"start": None}, "meter": None, "scheduler": {}}
    return Checkpoint(weights, state)


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    store = CheckpointStore(tmp_path, keep_last=2)
    for number in (1, 2):
        store.save(number, content(number), None)
    return store


def resume(store: CheckpointStore, spy: Spy) -> None:
    """Bring a model to the newest checkpoint, as a run does."""
    run = SimpleNamespace(
        sharded=None, process_group=process_group(), config=SimpleNamespace(seed=0), early_stopping=None,
        record=SimpleNamespace(load_state_dict=lambda state: None, monitor=Monitor()),
        scheduler=SimpleNamespace(state_dict=dict),
        stateful_parts=lambda: [StatefulPart("weights", spy)],
    )  # fmt: skip
    restore(run, *store.load_newest())


def resumed_value(store: CheckpointStore) -> float:
    """Resume as a run does, up to its first load_state_dict; returns which checkpoint comes to it."""
    spy = Spy()
    with pytest.raises(Reached):
        resume(store, spy)
    (weights,) = spy.loaded
    assert len(set(weights["w"].tolist())) == 1
    return float(weights["w"][0])


def spread(count: int, over: int) -> list[int]:
    """Return up to so many whole numbers from 0 to below `over`, with both ends."""
    return sorted({round(index * (over - 1) / max(1, min(count, over) - 1)) for index in range(min(count, over))})


def damages(good: bytes) -> dict[str, bytes]:
    """Return damaged contents of a file by what was done."""
    flipped = {}
    for number, offset in enumerate(spread(200, len(good))):
        other = bytearray(good)
        other[offset] ^= 1 << number % 8
        flipped[f"bit {number % 8} of byte {offset}"] = bytes(other)
    cut = {f"cut to {length} bytes": good[:length] for length in spread(50, len(good))}
    return flipped | cut | {"zeros": bytes(len(good)), "a byte more": good + b"\0", "twice": good + good}


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_noticed_before_anything_is_loaded(name, store, caplog):
    path = store.folder / "epoch-00002" / name
    good = path.read_bytes()
    assert resumed_value(store) == 2
    assert not caplog.records
    cases = damages(good)
    assert len(cases) >= 250
    for what, bad in cases.items():
        caplog.clear()
        path.write_bytes(bad)
        assert resumed_value(store) == 1, what
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith(f"checkpoint {path.parent} is damaged and is skipped: {name} "), what
    for remove in (Path.unlink, replace_by_folder):
        caplog.clear()
        path.write_bytes(good)
        remove(path)
        assert resumed_value(store) == 1
        assert f"is damaged and is skipped: {name} can't be read" in caplog.text
        if path.is_dir():
            path.rmdir()
    path.write_bytes(good)
    assert resumed_value(store) == 2


def test_the_files_of_another_checkpoint_are_noticed(store, caplog):
    for name in FILES[:3]:
        good = (store.folder / "epoch-00002" / name).read_bytes()
        shutil.copy(store.folder / "epoch-00001" / name, store.folder / "epoch-00002" / name)
        assert resumed_value(store) == 1
        (store.folder / "epoch-00002" / name).write_bytes(good)
    assert caplog.text.count("does not have the digest in manifest.json") == 3


def test_where_all_are_damaged_nothing_is_loaded(store, caplog):
    for path in store.folder.glob("epoch-*/weights.safetensors"):
        path.write_bytes(b"")
    spy = Spy()
    with pytest.raises(ResumeError, match="no usable checkpoint in .* Start the run again without --resume"):
        resume(store, spy)
    assert not spy.loaded and caplog.text.count("is damaged and is skipped") == 2


def sealed(content: dict) -> str:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({"sha256": digest, "content": content}, indent=1)


@pytest.mark.parametrize(
    ("schema", "age"), [(SCHEMA_VERSION + 1, "a newer"), (SCHEMA_VERSION - 1, "an older"), (99, "a newer")]
)
def test_another_version_is_refused_and_not_skipped(schema, age, store):
    path = store.folder / "epoch-00002" / "manifest.json"
    content = json.loads(path.read_text())["content"]
    path.write_text(sealed(content | {"schema_version": schema}))
    text = f"epoch-00002 was written by {age} version of this program \\(schema {schema}, this one reads 3\\)"
    with pytest.raises(ResumeError, match=text):
        store.load_newest()
    path.write_text(json.dumps({"schema_version": 2, "epoch": 2, "sha256": content["files"]}, indent=1))
    with pytest.raises(ResumeError, match="an older version of this program \\(schema 2"):
        store.load_newest()
    path.write_text(sealed(content))
    assert resumed_value(store) == 2


# -------------------------------------------------------------------------------------------------- the command line


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return _make_marker, (str(self.marker),)


def _make_marker(path: str) -> None:
    Path(path).touch()


def payloads(marker: Path) -> list[bytes]:
    """Return a pickle and an archive of torch.save, each of which makes a file when it is unpickled."""
    # By the name of a function that every process has.
    plain = f"cos\nmkdir\n(V{marker}\ntR.".encode()
    archive = marker.with_suffix(".pt")
    torch.save(Payload(marker), archive)
    return [plain, archive.read_bytes()]


def tree(run: Path) -> dict[Path, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in ("train.log", "metrics.json"))
    return {path: path.read_bytes() for path in files}


def test_the_payloads_work(tmp_path):
    plain, archive = payloads(tmp_path / "marker")
    pickle.loads(plain)
    assert (tmp_path / "marker").is_dir()
    (tmp_path / "marker").rmdir()
    (tmp_path / "again.pt").write_bytes(archive)
    torch.load(tmp_path / "again.pt", weights_only=False)
    assert (tmp_path / "marker").exists()


def test_nothing_that_a_resume_reads_is_unpickled_and_what_is_damaged_stays_as_it_is(project, tmp_path):
    assert project.run("Resumable", "epochs=1").returncode == 0
    (run,) = project.runs("Resumable")
    good = tmp_path / "good"
    shutil.copytree(run, good)
    (checkpoint,) = (run / "checkpoints").iterdir()
    marker = tmp_path / "marker"
    plain, archive = payloads(marker)
    for name in FILES:
        (checkpoint / name).write_bytes(archive if name.startswith("weights") else plain)
    (run / "model.safetensors").write_bytes(archive)
    before = tree(run)
    done = project.run("Resumable", "epochs=2", "--resume")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: no usable checkpoint in {run / 'checkpoints'}. Start the run again without --resume.\n"
    )
    assert f"checkpoint {checkpoint} is damaged and is skipped: manifest.json can't be read" in done.stdout
    assert tree(run) == before, "no weights were changed"
    assert not marker.exists()

    # A whole checkpoint, and payloads in place of all else. Without more training the best weights are read at the end.
    shutil.rmtree(checkpoint)
    shutil.copytree(good / "checkpoints" / checkpoint.name, checkpoint)
    for name in ("config.ini", "metrics.json"):
        (run / name).write_bytes(plain)
    done = project.run("Resumable", "epochs=1", "--resume")
    assert f"resumed run {run.name} after epoch 1 from {checkpoint}" in done.stdout
    assert "Traceback" not in done.stderr
    (run / "environment.json").write_bytes(plain)
    done = project.run("Resumable", "epochs=1", "--resume")
    assert "Traceback" not in done.stderr
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------------- our sources


def unsafe(source: str) -> list[str]:
    """Return what a source does that runs code out of data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
            found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in bad]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {key.arg: ast.unparse(key.value) for key in node.keywords}
            bad_call = called in ("eval", "exec", "yaml.unsafe_load", "pandas.read_pickle", "pd.read_pickle")
            bad_call |= called == "torch.load" and options.get("weights_only") != "True"
            bad_call |= options.get("allow_pickle", "False") != "False"
            found += [f"line {node.lineno}: {called}"] if bad_call else []
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_unsafe_code_is_found(source):
    assert len(unsafe(source)) == 1


def test_safe_code_is_not():
    assert not unsafe("model.eval(); torch.load(path, weights_only=True); np.load(path, allow_pickle=False)")


def test_no_source_of_ours_unpickles_or_runs_text():
    packages = ("config", "constants", "data", "evaluation", "model", "train", "bench")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")] + list(ROOT.glob("*.py"))
    assert len(files) > 80
    assert not {str(path): found for path in files if (found := unsafe(path.read_text(encoding="utf-8")))}
