"""Trained rankers: find a run, read its ranker.json and weights, and rebuild what it ranked with."""

import configparser
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from config import ConfigError
from constants import PACKAGE_ROOT, ZOO_DIR
from data.data_error import DataError
from data.image_encoder import ImageEncoder, load_encoder
from data.ranking_world import Fold, RankingWorld, load_world, make_fold
from data.similarity_lists import FEATURES_VERSION, ListMaker
from evaluation.ranking.ranker_training import train_command, train_ranker
from model.similarity_transformer import SimilarityEnsemble, TransformerShape
from storage.saved_run import FINISHED, Run, RunDamagedError, load_run, run_age

SCHEMA_VERSION = 1
SHIPPED_DIR = ZOO_DIR / "rankers"
"""Rankers that the program comes with, a folder each: `python -m evaluation.ship_rankers` makes them."""
_ZOO_FILES = ("zoo.yaml", "images.npz", "descriptions.npz")  # zoo.yaml holds the digest of the weights
_KINDS = {
    "split": str, "fold": int, "hybrid": bool, "encoder": str, "zoo": str, "performance": str, "members": int,
    "shape": dict,
}  # fmt: skip


@dataclass(frozen=True)
class RankerFile:
    """What ranker.json says.

    Attributes:
        folder: folder of the run that trained the ranker.
        split: name of the split that the ranker was trained on.
        fold: number of the split's fold that the ranker was trained on.
        hybrid: whether the ranker reads scores measured on the dataset.
        encoder: name of the class that makes features of images.
        codes: file of autoencoder codes, or None.
        zoo: folder of the zoo.
        performance: table of measured accuracies.
        members: number of transformers of the ensemble.
        shape: sizes of each transformer, the fields of `TransformerShape`.
        table_digest: SHA-256 of the table of accuracies as it was in training; None where it was not noted.
        zoo_digest: `zoo_digest` of the zoo as it was in training; None where it was not noted.
        features_version: `FEATURES_VERSION` of the program that trained the ranker; None where it was not noted.
    """

    folder: Path
    split: str
    fold: int
    hybrid: bool
    encoder: str
    codes: str | None
    zoo: Path
    performance: Path
    members: int
    shape: dict[str, Any]
    table_digest: str | None = None
    zoo_digest: str | None = None
    features_version: int | None = None

    @property
    def id(self) -> str:
        """The run's name; `shipped` of a ranker that the program comes with."""
        return "shipped" if self.folder.parent == SHIPPED_DIR else self.folder.name

    @property
    def stale(self) -> str | None:
        """What the ranker was trained on and is no longer so, as a person is told; None where all is as it was."""
        if self.table_digest not in (None, table_digest(self.performance)):
            return f"{self.performance} has changed since the ranker was trained"
        if self.zoo_digest not in (None, zoo_digest(self.zoo)):
            return f"the zoo in {self.zoo} has changed since the ranker was trained"
        if self.features_version not in (None, FEATURES_VERSION):
            return "the program has changed what rankers read since the ranker was trained"
        return None

    @property
    def command(self) -> str:
        """What trains such a ranker anew."""
        return train_command(self.split, self.hybrid)


def table_digest(path: Path) -> str | None:
    """Return the SHA-256 of a table of accuracies; None where it can't be read."""
    return _digest([path])


def zoo_digest(folder: Path) -> str | None:
    """Return the SHA-256 of what rankers read of a zoo; None where it can't be read."""
    return _digest([folder / name for name in _ZOO_FILES])


def _digest(files: list[Path]) -> str | None:
    try:
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    except OSError:
        return None


def read_ranker_file(folder: Path) -> RankerFile:
    """Read the ranker.json of a run.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / "ranker.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no trained ranker: there is no {path.name}. {_remedy()}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}. {_remedy()}") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version") if isinstance(content, dict) else None
        raise DataError(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}. {_remedy()}")
    if wrong := [key for key, kind in _KINDS.items() if type(content.get(key)) is not kind]:
        raise DataError(f"{path} is damaged: {wrong[0]} is {content.get(wrong[0])!r}. {_remedy()}")
    noted = ("codes", "table_digest", "zoo_digest", "features_version")
    values = {key: content[key] for key in _KINDS} | {key: content.get(key) for key in noted}
    # Paths of a shipped ranker are relative: they are the program's own files, wherever it lies.
    return RankerFile(folder, **values | {key: PACKAGE_ROOT / content[key] for key in ("zoo", "performance")})


def _remedy() -> str:
    return f"Train one: `{train_command('all', False)}`."


def newest_ranker(artifacts_dir: Path, splits: tuple[str, ...], hybrid: bool) -> Path:
    """Find a ranker: the newest finished run of the first split that has one, else the one that the program comes with.

    A run that was trained on something that has changed since gives way to a shipped ranker. Where that too is of other
    data, a ranker is trained now, and says so.

    Args:
        artifacts_dir: folder of all runs and published models.
        splits: names of the splits that the ranker may be trained on, the preferred one first.
        hybrid: whether the ranker reads scores measured on the dataset.

    Returns:
        The ranker's folder.

    Raises:
        DataError: there is none, and none can be trained; the text holds the command that trains one.
    """
    own, shipped = _newest_run(artifacts_dir, splits, hybrid), _shipped(splits, hybrid)
    # One of a zoo or table of the user's own is meant, also where these have grown: who recommends is told.
    if own and (shipped is None or not own.stale or (own.zoo, own.performance) != (shipped.zoo, shipped.performance)):
        return own.folder
    kind = "hybrid ranker" if hybrid else "ranker"
    if shipped is None:
        raise DataError(
            f"there is no finished {kind} (split = {' or '.join(splits)}) in {artifacts_dir}. Train one: "
            f"`{train_command(splits[0], hybrid)}`."
        )
    if not shipped.stale:
        return shipped.folder
    sys.stderr.write(f"note: {shipped.stale} ({shipped.folder}); training one: {shipped.command} (half a minute)\n")
    sys.stderr.flush()
    if train_ranker(shipped.split, hybrid, artifacts_dir) and (own := _newest_run(artifacts_dir, splits, hybrid)):
        return own.folder
    raise DataError(f"the training of a {kind} failed, as is said above. Train one: `{shipped.command}`.")


def _newest_run(artifacts_dir: Path, splits: tuple[str, ...], hybrid: bool) -> RankerFile | None:
    folders = [file.parent for file in artifacts_dir.glob("models/SimilarityTransformer/runs/*/ranker.json")]
    fitting: dict[str, RankerFile] = {}
    for folder in sorted(folders, key=run_age):
        try:
            ranker, run = read_ranker_file(folder), load_run(folder)
        except (DataError, RunDamagedError):
            continue  # another may be whole; who names this one is told what is wrong with it
        if ranker.hybrid is hybrid and run.state in FINISHED and not _is_control(run):
            fitting[ranker.split] = ranker
    return next((fitting[split] for split in splits if split in fitting), None)


def _shipped(splits: tuple[str, ...], hybrid: bool) -> RankerFile | None:
    for folder in (shipped_folder(split, hybrid) for split in splits):
        if folder.is_dir():
            return read_ranker_file(folder)
    return None


def shipped_folder(split: str, hybrid: bool) -> Path:
    """Return where a ranker lies that the program comes with."""
    return SHIPPED_DIR / (f"{split}-hybrid" if hybrid else split)


def _is_control(run: Run) -> bool:
    """Say whether a run learnt from accuracies in random order, as a test of the protocol."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(run.path / "config.ini", encoding="utf-8")
        return parser.getboolean(run.trainer, "shuffle_truth", fallback=False)
    except (configparser.Error, ValueError):
        return False


@dataclass(frozen=True)
class LoadedRanker:
    """A ranker, ready to rank.

    Attributes:
        file: content of the ranker's ranker.json.
        encoder: encoder that makes features of images.
        world: benchmark that the ranker was trained on.
        fold: tasks, models and probe sets that were seen in training.
        maker: maker of the ranker's inputs.
        network: the ensemble, in evaluation mode.
        codes: (N, W) autoencoder codes of the zoo's models, or None.
    """

    file: RankerFile
    encoder: ImageEncoder
    world: RankingWorld
    fold: Fold
    maker: ListMaker
    network: SimilarityEnsemble
    codes: torch.Tensor | None


def load_ranker(folder: Path) -> LoadedRanker:
    """Rebuild a ranker from its run folder, with the zoo and the table that it was trained on.

    Args:
        folder: folder of the run that trained the ranker.

    Raises:
        DataError: a file is missing or damaged, or they don't fit each other.
    """
    file = read_ranker_file(folder)
    try:
        encoder = load_encoder(file.encoder)
    except ConfigError as error:
        raise DataError(f"{folder / 'ranker.json'}: {error}") from error
    world = load_world(encoder, file.zoo, file.performance)
    fold = make_fold(world, file.split, file.fold)
    codes = _load_codes(file, world)
    maker = ListMaker(world, fold, file.hybrid, codes=codes)
    return LoadedRanker(file, encoder, world, fold, maker, _load_network(file, world, maker), codes)


def _load_codes(file: RankerFile, world: RankingWorld) -> torch.Tensor | None:
    if file.codes is None:
        return None
    try:
        tokens = load_file(file.codes)
        return torch.stack([tokens[name][-1] for name in world.models])
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise DataError(
            f"the ranker in {file.folder} needs the autoencoder codes {file.codes}, which can't be read: {error}. "
            "Restore that file, or train another ranker."
        ) from error


def _load_network(file: RankerFile, world: RankingWorld, maker: ListMaker) -> SimilarityEnsemble:
    path = file.folder / "model.safetensors"
    given = {
        "dataset_dim": maker.dataset_tokens(world.encoded[0]).shape[1],
        "model_dim": maker.model_tokens.shape[1],
        "pair_dim": len(maker.pair_names),
    }
    for key, count in given.items():
        if file.shape.get(key) != count:
            raise DataError(
                f"the ranker in {file.folder} reads {key} = {file.shape.get(key)}, but its zoo and table now give "
                f"{count}: they have changed since. Train it anew: `{file.command}`."
            )
    try:
        network = SimilarityEnsemble(TransformerShape(**file.shape), file.members)
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"cannot load the ranker's weights {path}: {reason}. Train it anew: `{file.command}`."
        ) from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise DataError(f"{path} holds weights that are not finite. Train the ranker anew: `{file.command}`.")
    return network.eval()
