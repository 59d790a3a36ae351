"""Open models and their sizes, from the table that is shipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_TABLE = Path(__file__).resolve().parent / "open_models.yaml"
_MANY = "many"  # languages that nobody lists: a multilingual model


@dataclass(frozen=True)
class OpenModel:
    """A model.

    Attributes:
        name: its id on the hub.
        family: which it is of.
        licence: name of its licence.
        free: whether the licence asks for no more than to be named; else `terms` says what it asks for.
        terms: what its licence asks for.
        languages: codes of the languages that it is made for; empty for many.
        context: tokens of the longest row.
        layers: layers.
        width: numbers of a hidden token.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: numbers of a head.
        mlp_width: hidden numbers of the feed-forward part.
        vocabulary: token ids.
        tied: whether the unembedding is the embedding.
        published: parameters as its makers count them.
    """

    name: str
    family: str
    licence: str
    free: bool
    terms: str
    languages: tuple[str, ...]
    context: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocabulary: int
    tied: bool
    published: int

    @property
    def linear_sizes(self) -> tuple[tuple[int, int], ...]:
        """What each linear layer of a layer takes and gives: query, key, value, output, gate, up, down."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return ((self.width, q), (self.width, kv), (self.width, kv), (q, self.width),
                (self.width, self.mlp_width), (self.width, self.mlp_width), (self.mlp_width, self.width))  # fmt: skip

    @property
    def parameters(self) -> int:
        """Number of weights, but for biases and norms, of which there are few."""
        of_layer = sum(one * other for one, other in self.linear_sizes)
        return self.layers * of_layer + (1 if self.tied else 2) * self.vocabulary * self.width

    @property
    def norms_heads(self) -> bool:
        """Whether queries and keys are normed head by head."""
        return self.family == "qwen3"

    def speaks(self, wanted: frozenset[str]) -> bool:
        """Whether it is made for all of some languages, by their codes."""
        return not self.languages or wanted <= set(self.languages)


def open_models() -> list[OpenModel]:
    """Return the models of the table, the smallest first."""
    table = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    found = [_model(name, row, table["licences"]) for name, row in table["models"].items()]
    return sorted(found, key=lambda one: one.parameters)


def written_on() -> str:
    """Return the day on which the table was written down."""
    return str(yaml.safe_load(_TABLE.read_text(encoding="utf-8"))["written"])


def _model(name: str, row: list[Any], licences: Mapping[str, Mapping[str, Any]]) -> OpenModel:
    family, licence, languages, *sizes = row
    terms = licences[licence]
    spoken = () if languages == _MANY else tuple(str(languages).split())
    return OpenModel(name, family, licence, bool(terms["free"]), str(terms.get("why", "")), spoken, *sizes)
