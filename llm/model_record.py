"""What trained weights are read with: language_model.json, beside them in a run's folder and in what a run exports."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from data.chat_renderer import Renderer
from data.chat_template import PRESENT
from llm.adapter_files import adapter_config
from llm.base_model import BaseModel
from llm.model_error import ModelError
from llm.shown_digest import shown_digest
from model.lora import LoraAdapter
from storage.files import write_atomically

RECORD = "language_model.json"


@dataclass(frozen=True)
class ModelRecord:
    """The base model of trained weights, and how its prompts are made.

    Attributes:
        base_model: the base model as it was asked for; files and folders by their whole path.
        base_digest: SHA-256 of its weights' files; of a model made on the spot its name.
        dtype: of its weights, such as `bfloat16`.
        template: the chat template, in Jinja.
        end_ids: ids that end an answer.
        template_options: further variables of the template.
        template_date: what a template that writes the date takes for today's; empty where it writes none.
        adapter: what PEFT's adapter_config.json says of the adapter; None where all weights were trained.
    """

    base_model: str
    base_digest: str
    dtype: str
    template: str
    end_ids: tuple[int, ...]
    template_options: dict[str, Any] = field(default_factory=dict)
    template_date: str = ""
    adapter: dict[str, Any] | None = None

    @staticmethod
    def of(base: BaseModel, renderer: Renderer, adapter: LoraAdapter | None) -> "ModelRecord":
        """Note a base model, a renderer, and what is trained.

        Args:
            base: the base model.
            renderer: the renderer of all prompts.
            adapter: the adapter; None where all weights are trained.
        """
        place = Path(base.source).expanduser()
        return ModelRecord(
            base_model=str(place.absolute()) if place.exists() else base.source,
            base_digest=base.digest,
            dtype=str(next(base.model.parameters()).dtype).removeprefix("torch."),
            template=renderer.template,
            end_ids=renderer.end_ids,
            template_options=dict(renderer.options),
            template_date=renderer.now.date().isoformat() if renderer.uses_clock else "",
            adapter=None if adapter is None else adapter_config(adapter, base.source, base.model.linear_sites()),
        )

    def write(self, folder: Path) -> None:
        """Write it into a folder.

        Args:
            folder: the run's folder, or that of an export.

        Raises:
            OutputError: it can't be written.
        """
        write_atomically(folder / RECORD, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def renderer(self, base: BaseModel) -> Renderer:
        """Return the renderer that the weights were trained with.

        Args:
            base: the base model.
        """
        now = datetime.fromisoformat(self.template_date) if self.template_date else PRESENT
        return Renderer(base.tokenizer, self.template, self.end_ids, options=self.template_options, now=now)

    def require_base(self, folder: Path, base: BaseModel) -> None:
        """Refuse to use weights with another base model than theirs.

        Args:
            folder: where the weights are, for the message.
            base: the base model that they would be used with.

        Raises:
            ModelError: it is another one, or its weights have changed since.
        """
        if base.digest != self.base_digest:
            other = "its weights are others now" if _same(base.source, self.base_model) else f"{base.source} is another"
            raise ModelError(
                f"{folder} was trained over {self.base_model} (digest {shown_digest(self.base_digest)}); {other} "
                f"(digest {shown_digest(base.digest)}). Use it with the base model that it was trained over"
            )


def read_record(folder: Path) -> ModelRecord | None:
    """Read the record of a folder.

    Args:
        folder: the run's folder, or that of an export.

    Returns:
        The record; None where the folder has none.

    Raises:
        ModelError: it can't be read.
    """
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return ModelRecord(**{**_known(found), "end_ids": tuple(found["end_ids"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of anything
        raise ModelError(f"{path} can't be read: {error}") from error


def _same(one: str, other: str) -> bool:
    return one == other or str(Path(one).expanduser().absolute()) == other


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a later version may have added."""
    return {name: value for name, value in found.items() if name in ModelRecord.__dataclass_fields__}
