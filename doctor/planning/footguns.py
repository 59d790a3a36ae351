"""What goes wrong on given hardware, whatever the versions."""

from collections.abc import Iterator
from dataclasses import dataclass

from doctor.planning.wish import Hardware, Wish


@dataclass(frozen=True)
class Footgun:
    """Something that goes wrong.

    Args:
        text: what, and what to do instead.
        stops: whether what was asked for can't be had so; else it is good to know.
    """

    text: str
    stops: bool = False


def footguns(wish: Wish) -> Iterator[Footgun]:
    """Yield what goes wrong with what is wanted, where it is wanted; what stops it first."""
    found = [*_of_hardware(wish), *_of_system(wish), *_of_libraries(wish), *_of_place(wish)]
    yield from sorted(found, key=lambda one: not one.stops)


def _of_hardware(wish: Wish) -> Iterator[Footgun]:
    hardware, libraries = wish.hardware, wish.libraries
    if hardware.kind == "amd":
        yield Footgun(
            "AMD GPUs take ROCm builds of torch from PyTorch's own index; no set here is for them.", stops=True
        )
    if hardware.kind in ("mac", "cpu"):
        name = "a Mac" if hardware.kind == "mac" else "a CPU"
        instead = "mlx-lm" if hardware.kind == "mac" else "llama-cpp-python, or transformers for small models"
        for library, doing in (("vllm", f"serve with {instead}"), ("sglang", f"serve with {instead}"),
                               ("unsloth", "fine-tune with trl and peft" + ", or mlx-lm" * (hardware.kind == "mac")),
                               ("flash-attn", "attn_implementation='sdpa' needs nothing"),
                               ("xformers", "torch's own attention needs nothing"),
                               ("deepspeed", "train with accelerate"), ("axolotl", "train with trl and peft"),
                               ("llamafactory", "train with trl and peft")):  # fmt: skip
            if library in libraries:
                yield Footgun(f"{library} is for NVIDIA GPUs, not for {name}: {doing}.", stops=True)
        if "bitsandbytes" in libraries or wish.method == "qlora":
            more = (
                ": use LoRA in 16 bit, or mlx-lm, which trains on 4-bit models"
                if hardware.kind == "mac"
                else ": use LoRA in 16 bit"
            )
            yield Footgun(f"bitsandbytes' 4-bit training is for CUDA; on {name} it fails or crawls{more}.", stops=True)
    if hardware.kind == "nvidia" and hardware.capability:
        yield from _of_capability(hardware, wish)


def _of_capability(hardware: Hardware, wish: Wish) -> Iterator[Footgun]:
    capability, name = hardware.capability or (0, 0), hardware.name
    if capability < (7, 0):
        yield Footgun(
            f"{name} (capability {capability[0]}.{capability[1]}) is older than today's torch, bitsandbytes, unsloth "
            "and vllm run on: another GPU, or torch<2.8 without them.",
            stops=True,
        )
    elif capability < (7, 5):
        yield Footgun(
            f'torch\'s CUDA 12.8 and 13 builds have no code for {name} ("no kernel image"): torch 2.7 with CUDA 12.6.'
        )
    if capability < (8, 0):
        yield Footgun(f"{name} has no bf16: bf16=False, fp16=True; vllm serve --dtype half. Models trained in "
                      "bf16 may overflow to NaN in fp16: then fp32.")  # fmt: skip
        stops = "flash-attn" in wish.libraries
        yield Footgun(f"flash-attn 2 needs Ampere (capability 8.0), {name} has {capability[0]}.{capability[1]}: "
                      "attn_implementation='sdpa'; unsloth and vllm choose by themselves.", stops)  # fmt: skip
    if capability < (8, 9):
        yield Footgun(
            f"fp8 needs Ada or Hopper (capability 8.9): on {name} take AWQ or GPTQ in 4 bit, or 8 bit by bitsandbytes."
        )
    if capability >= (10, 0):
        yield Footgun(f"{name} (Blackwell) needs a torch built for CUDA 12.8 or newer (torch>=2.7), and driver 570 or "
                      "newer; older wheels say \"no kernel image is available\".")  # fmt: skip
        yield Footgun(
            f"flash-attn 3 is for Hopper; on {name} take attn_implementation='sdpa' or flash-attn 2.8 built for it."
        )


def _of_system(wish: Wish) -> Iterator[Footgun]:
    if wish.system != "win32":
        return
    for library in ("vllm", "sglang", "axolotl", "deepspeed", "llamafactory"):
        if library in wish.libraries:
            yield Footgun(
                f"{library} does not run on Windows: use WSL 2 (Ubuntu), and say so without 'windows'.", stops=True
            )
    if wish.goal == "serve" and not wish.libraries:
        yield Footgun("vllm does not run on Windows: use WSL 2, or llama.cpp's own server.", stops=True)
    yield Footgun("triton has no wheels for Windows: triton-windows stands in, else torch.compile is off.")
    yield Footgun("PyPI's torch for Windows has no CUDA: take it from https://download.pytorch.org/whl/cu130.")


def _of_libraries(wish: Wish) -> Iterator[Footgun]:
    libraries = set(wish.libraries)
    if "unsloth" in libraries and wish.hardware.count > 1:
        yield Footgun("unsloth is made for one GPU: with several take trl with accelerate, or axolotl.")
    if "flash-attn" in libraries:
        yield Footgun("flash-attn is built against the torch that is there: torch first, then flash-attn with "
                      "--no-build-isolation, or its wheel for exactly this torch, Python and C++ ABI.")  # fmt: skip
    if "unsloth" in libraries and libraries & {"trl", "transformers", "peft"}:
        yield Footgun("import unsloth before trl, transformers and peft: it patches them.")
    if {"llamafactory", "trl"} <= libraries:
        yield Footgun("llamafactory 0.9.5 caps trl at 0.24: another trl needs another environment.")
    if "bespokelabs-curator" in libraries and len(libraries) > 1:
        yield Footgun(
            "bespokelabs-curator holds datasets below 4, trl 1.16 needs 4.7: two environments, JSONL between them."
        )
    if "deepspeed" in libraries:
        yield Footgun(
            "deepspeed builds its C++ parts when first used: nvcc of the CUDA that torch was built for, and ninja."
        )


def _of_place(wish: Wish) -> Iterator[Footgun]:
    if wish.place in ("colab", "kaggle"):
        yield Footgun("The image brings torch and numpy that fit its driver: after a cell that changes them restart "
                      "the runtime, before anything is imported.")  # fmt: skip
    if wish.place == "kaggle" and wish.hardware.kind == "nvidia" and wish.hardware.count > 1:
        yield Footgun("Kaggle gives two T4: for unsloth set CUDA_VISIBLE_DEVICES=0 before the first import.")
