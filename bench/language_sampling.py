"""The sampling half of bench/language.py: our sampler against transformers' generate, and against the floor.

Lookahead is off: random weights repeat themselves, so that guesses would be right more often than with real text.
Both have the same random weights of SmolLM2-135M's shape in fp32, the same prompts, and take the likeliest token, so
that they must say the same. A round runs each case once with both, in a new order; a ratio is one of the same round.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from language_models import base_model, transformers_twin

from llm.sampling import Sampler, SamplerLimits
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.causal_lm import CausalLM
from model.lora import NO_SEGMENTS, LoraBank, LoraSettings


@dataclass(frozen=True)
class Case:
    """Prompts of one kind.

    Attributes:
        name: what the table says.
        rows: prompts.
        prompt: tokens of each.
        shared: whether they are one and the same.
        wanted: how many times as fast as transformers we want to be.
    """

    name: str
    rows: int
    prompt: int
    shared: bool
    wanted: float


CASES = (
    Case("1 row, 32-token prompt", 1, 32, False, 2.0),
    Case("24 rows, 32-token prompts", 24, 32, False, 3.0),
    Case("24 rows that share a 450-token prompt, prompt included", 24, 450, True, 6.0),
)


def sampling_table(
    rounds: int, new: int, quick: bool = False, clock: Callable[[], float] = time.perf_counter
) -> list[str]:
    """Measure, and return the lines of a table.

    Args:
        rounds: how often each is measured.
        new: tokens of each sample.
        quick: whether to take a tiny model, to see that it works.
        clock: what gives the seconds.
    """
    base = replace(base_model(quick), tokenizer=None)
    model, shape = base.model, base.model.shape
    theirs = transformers_twin(model)
    bank = LoraBank(model)
    bank.create("adapter", LoraSettings(rank=16))
    sampler = Sampler(base, bank, SamplerLimits(lookahead=0))
    generator = torch.Generator().manual_seed(0)
    lines = [
        "| case | transformers, tokens/s | ours, tokens/s | ratio | wanted | of the floor's rate | with an adapter |"
        " same tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        prompts = torch.randint(0, shape.vocabulary, (1 if case.shared else case.rows, case.prompt),
                                generator=generator).expand(case.rows, -1)  # fmt: skip
        said: dict[str, torch.Tensor] = {}

        def ours(adapter: str | None = None, prompts=prompts, said=said) -> None:
            settings = SamplingSettings(temperature=0, max_tokens=new, end_ids=())
            sampler.clear_prefixes()
            found = sampler.sample([SampleRequest(row, settings, adapter=adapter) for row in prompts.tolist()])
            said["ours" if adapter is None else "adapter"] = torch.tensor([row.tokens for (row,) in found])

        def generate(prompts=prompts, said=said) -> None:
            with torch.no_grad():
                out = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new,
                                      min_new_tokens=new, do_sample=False, pad_token_id=0)  # fmt: skip
            said["theirs"] = out[:, prompts.shape[1] :]

        prefill = case.prompt * (1 if case.shared else case.rows)
        contestants: dict[str, Callable[[], None]] = {
            "theirs": generate, "ours": ours, "adapter": lambda run=ours: run("adapter"),
            "floor": lambda case=case, prefill=prefill: _floor(model, case.rows, prefill, new),
        }  # fmt: skip
        times = _interleaved(contestants, rounds, clock)
        tokens = case.rows * new
        rate = {name: tokens / statistics.median(each) for name, each in times.items()}
        ratio = statistics.median(a / b for a, b in zip(times["theirs"], times["ours"], strict=True))
        share = statistics.median(a / b for a, b in zip(times["floor"], times["ours"], strict=True))
        same = (said["ours"] == said["theirs"]).float().mean().item()
        lines.append(
            f"| {case.name} | {rate['theirs']:.1f} | {rate['ours']:.1f} | {ratio:.1f} | {case.wanted:g} | "
            f"{share:.0%} | {rate['adapter']:.1f} | {same:.0%} |"
        )
        print(lines[-1], flush=True)
    return lines


def _interleaved(
    contestants: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in order.sample(list(contestants), len(contestants)):
            begun = clock()
            contestants[name]()
            if number:  # the first round warms up
                times[name].append(clock() - begun)
    return times


@torch.inference_mode()
def _floor(model: CausalLM, rows: int, prefill: int, new: int) -> None:
    """Do the matrix products of a case and nothing else: prompts at once, then one token of each row at a time."""
    shape = model.shape
    layers = [[*layer.self_attn.groups(), *layer.mlp.groups()] for layer in model.model.layers]
    for tokens, times in ((prefill, 1), (rows, new)):
        inputs = {width: torch.ones(tokens, width) for width in (shape.width, shape.mlp_width)}
        inputs[shape.heads * shape.head_dim] = torch.ones(tokens, shape.heads * shape.head_dim)
        for _ in range(times):
            for groups in layers:
                for group, width in zip(groups, (shape.width, shape.heads * shape.head_dim, shape.width,
                                                 shape.mlp_width), strict=True):  # fmt: skip
                    group(inputs[width], "", NO_SEGMENTS)
            model.logits(torch.ones(rows, shape.width))
