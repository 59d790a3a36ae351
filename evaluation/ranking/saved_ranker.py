"""Trained rankers: find a run, read its ranker.json and weights, and rebuild what it ranked with."""

import configparser
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from config import ConfigError
from constants import command
from data.data_error import DataError
from data.image_encoder import ImageEncoder, load_encoder
from data.ranking_world import Fold, RankingWorld, load_world, make_fold
from data.similarity_lists import ListMaker
from model.similarity_transformer import SimilarityEnsemble, TransformerShape
from storage.saved_run import FINISHED, Run, RunDamagedError, load_run, run_age

SCHEMA_VERSION = 1
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

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def table_changed(self) -> bool:
        """Whether the table of accuracies is no longer the one that the ranker was trained on."""
        now = hashlib.sha256(self.performance.read_bytes()).hexdigest()
        return self.table_digest is not None and self.table_digest != now

    @property
    def command(self) -> str:
        """What trains such a ranker anew."""
        return train_command(self.split, self.hybrid)


def train_command(split: str, hybrid: bool) -> str:
    """Return the command that trains a ranker."""
    return f"{command('train')} SimilarityTransformerTrainer split={split}" + (" hybrid=on" if hybrid else "")


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
    values = {key: content[key] for key in _KINDS} | {key: content.get(key) for key in ("codes", "table_digest")}
    return RankerFile(folder, **values | {key: Path(content[key]) for key in ("zoo", "performance")})


def _remedy() -> str:
    return f"Train one: `{train_command('all', False)}`."


def newest_ranker(artifacts_dir: Path, splits: tuple[str, ...], hybrid: bool) -> Path:
    """Find the newest finished run of the first split that has one.

    Args:
        artifacts_dir: folder of all runs and published models.
        splits: names of the splits that the ranker may be trained on, the preferred one first.
        hybrid: whether the ranker reads scores measured on the dataset.

    Returns:
        The run folder.

    Raises:
        DataError: there is none; the text holds the command that trains one.
    """
    folders = [file.parent for file in artifacts_dir.glob("models/SimilarityTransformer/runs/*/ranker.json")]
    fitting: dict[str, Path] = {}
    for folder in sorted(folders, key=run_age):
        try:
            ranker, run = read_ranker_file(folder), load_run(folder)
        except (DataError, RunDamagedError):
            continue  # another may be whole; who names this one is told what is wrong with it
        if ranker.hybrid is hybrid and run.state in FINISHED and not _is_control(run):
            fitting[ranker.split] = folder
    if found := [fitting[split] for split in splits if split in fitting]:
        return found[0]
    kind = "hybrid ranker" if hybrid else "ranker"
    raise DataError(
        f"there is no finished {kind} (split = {' or '.join(splits)}) in {artifacts_dir}. Train one: "
        f"`{train_command(splits[0], hybrid)}`."
    )


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
