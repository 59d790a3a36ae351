"""What somebody wants, read from a sentence: "unsloth + trl on T4, Colab", "serve 8B on a 24 GB card"."""

import re
from dataclasses import dataclass

from constants.nearest import nearest
from doctor.diagnosis.gpu_tables import GPUS

LIBRARIES = {
    "unsloth": "unsloth", "trl": "trl", "transformers": "transformers", "peft": "peft", "vllm": "vllm",
    "sglang": "sglang", "axolotl": "axolotl", "llamafactory": "llamafactory", "llama-factory": "llamafactory",
    "bitsandbytes": "bitsandbytes", "bnb": "bitsandbytes", "flash-attn": "flash-attn", "flash-attention": "flash-attn",
    "flashattention": "flash-attn", "flash_attn": "flash-attn", "accelerate": "accelerate", "datasets": "datasets",
    "deepspeed": "deepspeed", "xformers": "xformers", "mlx": "mlx-lm", "mlx-lm": "mlx-lm",
    "llama.cpp": "llama-cpp-python",
    "llama-cpp-python": "llama-cpp-python", "llama-cpp": "llama-cpp-python", "curator": "bespokelabs-curator",
    "bespokelabs-curator": "bespokelabs-curator", "torch": "torch", "pytorch": "torch", "triton": "triton",
}  # fmt: skip
"""Words for libraries, and the distribution that each means."""
# Goals by the words that name them; the first that is found counts, so a special one stands before a general one.
_GOALS = (
    ("reinforce", r"\bgrpo\b|\bppo\b|\brl(hf|vr)?\b|\breinforc\w*|\brloo\b"),
    ("generate", r"\bgenerat\w* (?:synthetic )?data|\bsynthetic data|\bdistill\w*|\bdata generation"),
    ("finetune", r"\bfine[- ]?tun\w*|\bsft\b|\bdpo\b|\borpo\b|\bkto\b|\bq?lora\b|\btrain\w*|\badapt\w*"),
    ("serve", r"\bserv\w*|\binfer\w*|\bhost\w*|\bdeploy\w*|\bapi\b|\bchat\b|\bendpoint\b|\brun\b"),
)
_TRAINS = ("unsloth", "trl", "peft", "axolotl", "llamafactory", "deepspeed", "bitsandbytes", "transformers")
_SERVES = ("vllm", "sglang", "llama-cpp-python", "mlx-lm")
_METHODS = (("qlora", r"\bqlora\b|\b4[- ]?bit\b|\bnf4\b"), ("lora", r"\blora\b|\badapter"),
            ("full", r"\bfull(?:[- ](?:fine[- ]?tun\w*|train\w*|parameter\w*))?\b|\bpre[- ]?train\w*"))  # fmt: skip
_PLACES = (("colab", r"\bcolab\b"), ("kaggle", r"\bkaggle\b"),
           ("cloud", r"\bcloud\b|\baws\b|\bgcp\b|\bazure\b|\brunpod\b|\blambda\b|\bmodal\b|\bvast(?:\.ai)?\b"),
           ("local", r"\blocal\w*\b|\blaptop\b|\bdesktop\b|\bworkstation\b|\bmy (?:machine|pc)\b"))  # fmt: skip
_MAC = re.compile(r"\bmac(?:book|os| mini| studio)?\b|\bapple\b|\bm[1-5](?: (?:pro|max|ultra))?\b|\bmps\b|\bmetal\b")
_CPU = re.compile(r"\bcpu(?:s|[- ]only)?\b|\bno gpu\b|\bwithout (?:a )?gpu\b")
_AMD = re.compile(r"\bamd\b|\brocm\b|\bradeon\b|\bmi\d{3}x?\b|\brx ?\d{4}\b")
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(b|m)(?:illion)?(?![\w])", re.IGNORECASE)
_MEMORY = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:gb|gib|giga ?bytes?|g vram)\b", re.IGNORECASE)
# A card by its number alone, "4090"; not the Radeon of the like.
_NUMBER = re.compile(r"(?<![\w.-])(?<!rtx )(?<!rx )([2-5]0[6-9]0)(?=(?: ?ti| super)?(?![\w.]))", re.IGNORECASE)
_COUNT = re.compile(r"\b(\d)\s*(?:x|\*)\s*(?=[a-z])|\b(two|four|eight)\b", re.IGNORECASE)
_MODELS = frozenset({"llama", "mistral", "mixtral", "qwen", "gemma", "phi", "deepseek", "smollm", "instruct", "base"})
_FILLER = frozenset(
    {
        "a",
        "an",
        "and",
        "on",
        "in",
        "with",
        "for",
        "of",
        "the",
        "to",
        "my",
        "at",
        "by",
        "using",
        "use",
        "via",
        "or",
        "model",
        "models",
        "gpu",
        "card",
        "vram",
        "ram",
        "gb",
        "one",
        "single",
        "i",
        "it",
        "from",
        "want",
        "run",
        "notebook",
        "llm",
        "language",
        "some",
        "please",
        "small",
        "large",
        "big",
        "tiny",
        "nvidia",
        "rtx",
        "tesla",
        "geforce",
        "parameters",
        "parameter",
        "params",
        "python",
        "script",
        "lora",
        "qlora",
        "bit",
        "google",
        "machine",
        "set",
        "environment",
        "over",
        "data",
    }
)


@dataclass(frozen=True)
class Hardware:
    """What it runs on.

    Args:
        kind: "nvidia", "mac", "cpu", "amd", or "" where nothing was said.
        name: as it is shown.
        capability: compute capability of an NVIDIA processor.
        memory: gigabytes of one processor (of a Mac, of the machine); None where not known.
        count: how many there are.
    """

    kind: str = ""
    name: str = "hardware that was not named"
    capability: tuple[int, int] | None = None
    memory: float | None = None
    count: int = 1


@dataclass(frozen=True)
class Wish:
    """What somebody wants.

    Args:
        text: the sentence.
        libraries: distributions that are named.
        goal: "finetune", "reinforce", "serve", "generate"; "" where nothing tells.
        method: "qlora", "lora", "full"; "" where nothing tells.
        hardware: what it runs on.
        place: "colab", "kaggle", "cloud", "local"; "" where nothing tells.
        system: "linux", "darwin" or "win32".
        billions: size of the model in billions of parameters; None where not told.
        ignored: words that mean nothing here.
    """

    text: str
    libraries: tuple[str, ...] = ()
    goal: str = ""
    method: str = ""
    hardware: Hardware = Hardware()
    place: str = ""
    system: str = "linux"
    billions: float | None = None
    ignored: tuple[str, ...] = ()


def read_wish(text: str) -> Wish:
    """Read a sentence for libraries, goal, hardware, place and size."""
    lower = " ".join(text.lower().split())
    libraries, rest = _libraries(lower)
    goal, rest = _first(_GOALS, rest)
    method, rest = _first(_METHODS, lower if goal == "finetune" and not rest else rest)
    method = method or _first(_METHODS, lower)[0]
    place, rest = _first(_PLACES, rest)
    hardware, rest = _hardware(rest, place)
    system = (
        "darwin"
        if hardware.kind == "mac"
        else "win32"
        if re.search(r"\bwindows\b|\bwin(?:32|10|11)\b", rest)
        else "linux"
    )
    rest = re.sub(r"\bwindows\b|\bwin(?:32|10|11)\b|\blinux\b|\bubuntu\b|\bwsl2?\b", " ", rest)
    billions = None
    if size := _SIZE.search(rest):
        billions = float(size[1]) / (1 if size[2].lower() == "b" else 1000)
        rest = _SIZE.sub(" ", rest)
    if not goal:
        goal = ("serve" if set(libraries) & set(_SERVES) and not set(libraries) & set(_TRAINS)
                else "generate" if "bespokelabs-curator" in libraries
                else "finetune" if set(libraries) & set(_TRAINS) or method else "")  # fmt: skip
    words = re.findall(r"[a-z][\w.+-]*[a-z\d]", rest)
    ignored = tuple(
        dict.fromkeys(word for word in words if word not in _FILLER | _MODELS and not re.search(r"\d", word))
    )
    return Wish(text, libraries, goal, method, hardware, place, system, billions, ignored)


def meant_by(word: str) -> str | None:
    """Return the library that a word was probably meant for; None where none is near."""
    return nearest(word, LIBRARIES, cutoff=0.75)


def _libraries(text: str) -> tuple[tuple[str, ...], str]:
    found = []
    for word in sorted(LIBRARIES, key=len, reverse=True):
        pattern = rf"(?<![\w-]){re.escape(word)}(?![\w-])"
        if re.search(pattern, text):
            found.append((text.index(word), LIBRARIES[word]))
            text = re.sub(pattern, lambda one: " " * len(one[0]), text)
    return tuple(dict.fromkeys(name for _, name in sorted(found))), text


def _first(table: tuple[tuple[str, str], ...], text: str) -> tuple[str, str]:
    for name, pattern in table:
        if re.search(pattern, text):
            return name, re.sub(pattern, " ", text)
    return "", text


def _hardware(text: str, place: str) -> tuple[Hardware, str]:
    memory = float(found[1]) if (found := _MEMORY.search(text)) else None
    rest = _MEMORY.sub(" ", text)
    number = _COUNT.search(rest)
    count = {"two": 2, "four": 4, "eight": 8}.get(number[2] or "", 0) or int(number[1] or 1) if number else 1
    rest = _NUMBER.sub(r"rtx \1", _COUNT.sub(" ", rest))
    for pattern, name, capability, gigabytes in GPUS:
        if named := re.search(pattern, rest, re.IGNORECASE):
            shown = named[0].upper() if "GPU" in name else name
            size = memory or _MEMORIES.get(re.sub(r"\s", "", shown.upper()), 0) or gigabytes or None
            # A free T4 of Colab and Kaggle shows a gigabyte less than is printed on it.
            usable = size - 1 if size and place in ("colab", "kaggle") and not memory else size
            return Hardware("nvidia", shown, capability, usable, count), rest.replace(named[0], " ")
    for kind, machine, name in (("amd", _AMD, "an AMD GPU"), ("mac", _MAC, "a Mac"), ("cpu", _CPU, "a CPU")):
        if machine.search(rest):
            return Hardware(kind, name, None, memory, count), machine.sub(" ", rest)
    if place in ("colab", "kaggle"):  # what their free machines have
        return Hardware("nvidia", "T4", (7, 5), memory or 15.0, 2 if place == "kaggle" else 1), rest
    if memory:
        return Hardware("nvidia", f"an NVIDIA GPU with {memory:g} GB", None, memory, count), rest
    return Hardware(), rest


# Gigabytes of processors that the table of families has no number for; of several sizes the smaller.
_MEMORIES = {
    "V100": 16, "A100": 40, "H200": 141, "RTX3060": 12, "RTX3070": 8, "RTX3080": 10, "RTX3090": 24, "RTX4060": 8,
    "RTX4070": 12, "RTX4080": 16, "RTX4090": 24, "RTX5060": 8, "RTX5070": 12, "RTX5080": 16, "RTX5090": 32,
    "RTX2060": 6,
    "RTX2070": 8, "RTX2080": 8, "GTX1660": 6, "GTX1080": 8,
}  # fmt: skip
