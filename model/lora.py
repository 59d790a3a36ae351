"""Low-rank adapters: several of them train and sample in one pass over a frozen model.

An adapter adds `scale * B @ A` to the weight of each linear layer it has a part in. Its tensors are stacked over the
layers of a kind (all `q_proj`, ...), so that an optimizer sees a dozen tensors in place of hundreds. They are fp32 over
any base dtype.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.flat_tensors import zeros_for

TARGETS = ("attention", "mlp", "unembedding")
# Ranks of layers that share their input which are applied in one product, most of which is zeros.
_MOST_JOINED = 192


@dataclass(frozen=True)
class LinearSite:
    """A linear layer that an adapter may change.

    Attributes:
        name: path of the layer in the model, as in its state dict.
        target: what kind of layer it is: attention, mlp or unembedding.
        inputs: numbers that go in.
        outputs: numbers that come out.
    """

    name: str
    target: str
    inputs: int
    outputs: int


class AdaptableModel(Protocol):
    """A model whose linear layers adapters may change."""

    def linear_sites(self) -> list[LinearSite]:
        """Return the layers that adapters may change, in the order of the model."""

    def site_weight(self, name: str) -> Tensor:
        """Return the weight (outputs, inputs) of one of these layers, by its name."""

    def requires_grad_(self, requires_grad: bool = True) -> object:
        """Freeze the weights, or let them be trained."""


@dataclass(frozen=True)
class LoraSettings:
    """What an adapter is made of.

    Attributes:
        rank: rows of A and columns of B.
        alpha: the scale is alpha / rank, or alpha / sqrt(rank) with `rslora`.
        targets: of attention, mlp, unembedding: the kinds of layers that are changed.
        rslora: whether the scale goes with the square root of the rank (rank-stabilised LoRA).
        seed: seed of the random numbers in A; B starts at zero.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("attention", "mlp")
    rslora: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoRA rank is {self.rank}; it must be 1 or more")
        wrong = [target for target in self.targets if target not in TARGETS]
        if wrong or not self.targets:
            raise ValueError(f"LoRA targets are {', '.join(self.targets) or 'none'}; allowed: {', '.join(TARGETS)}")


@dataclass(frozen=True)
class SitePart:
    """The part of an adapter in one layer.

    Attributes:
        site: the layer.
        rank: rows of A that are used; 0 where the adapter leaves the layer alone.
        alpha: the scale is alpha / rank, or alpha / sqrt(rank) with `rslora`.
        rslora: whether the scale goes with the square root of the rank.
    """

    site: LinearSite
    rank: int
    alpha: float
    rslora: bool = False

    @property
    def scale(self) -> float:
        """Factor of `B @ A`."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def stack_key(name: str) -> str:
    """Return what the names of the layers of one kind have in common: `model.layers.3.x` -> `model/layers/*/x`."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name).replace(".", "/")


class LoraAdapter(nn.Module):
    """One adapter: the tensors A and B of each kind of layer, stacked.

    Args:
        parts: its part in each layer, in the order of the model; layers of one kind must have one size.
        device: where its tensors are.
    """

    def __init__(self, parts: Sequence[SitePart], device: torch.device | str | None = None) -> None:
        super().__init__()
        self.stacks: dict[str, list[SitePart]] = {}
        self._ready: ReadyFactors | None = None  # only of adapters that no one trains
        for part in parts:
            self.stacks.setdefault(stack_key(part.site.name), []).append(part)
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        for key, stack in self.stacks.items():
            rank, site = max(part.rank for part in stack), stack[0].site
            if any((part.site.inputs, part.site.outputs) != (site.inputs, site.outputs) for part in stack):
                raise ValueError(f"the layers {key} differ in size")
            self.lora_A[key] = nn.Parameter(torch.zeros(len(stack), rank, site.inputs, device=device))
            self.lora_B[key] = nn.Parameter(torch.zeros(len(stack), site.outputs, rank, device=device))

    def parts(self) -> list[SitePart]:
        """Return its part in each layer."""
        return [part for stack in self.stacks.values() for part in stack]

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Start afresh: A from random numbers, uniform within 1 / sqrt(inputs), and B at zero.

        Args:
            seed: seed of the numbers; the same on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        for key, stack in self.stacks.items():
            for index, part in enumerate(stack):
                bound = part.site.inputs**-0.5
                drawn = torch.empty(part.rank, part.site.inputs).uniform_(-bound, bound, generator=generator)
                self.lora_A[key][index, : part.rank] = drawn.to(self.lora_A[key].device)
            self.lora_B[key].zero_()

    def tensors(self) -> Iterator[tuple[SitePart, Tensor, Tensor]]:
        """Yield of each layer its part, A (rank, inputs) and B (outputs, rank), as views."""
        for key, stack in self.stacks.items():
            for index, part in enumerate(stack):
                if part.rank:
                    yield part, self.lora_A[key][index, : part.rank], self.lora_B[key][index, :, : part.rank]

    def factors(self) -> dict[str, tuple[Tensor, Tensor, float]]:
        """Return for each layer's name (A, B, scale), views through which gradients reach the stacks at once."""
        found = {}
        for key, stack in self.stacks.items():
            a_of, b_of = self.lora_A[key].unbind(0), self.lora_B[key].unbind(0)
            for part, a, b in zip(stack, a_of, b_of, strict=True):
                if part.rank:
                    found[part.site.name] = (a, b, part.scale)
        return found

    def sharing(self, trained: bool = False) -> "LoraAdapter":
        """Return another adapter of the same tensors; it stays when the first gets other tensors.

        Args:
            trained: whether it goes on to be trained. Its passes then round as those of any adapter that is trained
                do, and never by factors that are kept ready for sampling.
        """
        other = LoraAdapter(self.parts(), device="meta")
        other.load_state_dict({key: value.detach() for key, value in self.state_dict().items()}, assign=True)
        other._ready = None if trained else ReadyFactors()
        return other.requires_grad_(trained)

    def ready_factors(self) -> "ReadyFactors | None":
        """Return its factors as sampling needs them, kept from one call to the next; None for one that is trained."""
        if self._ready is None or torch.is_grad_enabled():
            return None
        marks = tuple((each.data_ptr(), 0 if each.is_inference() else each._version) for each in self.parameters())
        if self._ready.marks != marks:
            self._ready = ReadyFactors(marks, self.factors())
        return self._ready

    def snapshot(self) -> "LoraAdapter":
        """Return a copy that later steps do not change, and that has no gradients."""
        copy = LoraAdapter(self.parts(), device=next(self.parameters()).device)
        copy.load_state_dict(self.state_dict())
        return copy.requires_grad_(False)


class LoraGradients:
    """Gradients of one adapter, into which backward adds what each layer gives: to train by many small requests.

    Autograd would take each layer's factors out of the stacks, and put as many gradients together again.

    Args:
        adapter: the adapter, which must stay as it is until backward is over.

    Attributes:
        flat: all gradients end to end, in the order of the adapter's parameters.
    """

    def __init__(self, adapter: LoraAdapter) -> None:
        self.flat, self._tensors = zeros_for([parameter.detach() for parameter in adapter.parameters()])
        by_name = dict(zip((name for name, _ in adapter.named_parameters()), self._tensors, strict=True))
        self.sites: dict[str, tuple[Tensor, Tensor]] = {}
        self.factors: dict[str, tuple[Tensor, Tensor, float]] = {}
        for key, stack in adapter.stacks.items():
            given = (adapter.lora_A[key].detach().unbind(0), adapter.lora_B[key].detach().unbind(0),
                     by_name[f"lora_A.{key}"].unbind(0), by_name[f"lora_B.{key}"].unbind(0))  # fmt: skip
            for part, a, b, of_a, of_b in zip(stack, *given, strict=True):
                if part.rank:
                    self.factors[part.site.name] = (a, b, part.scale)
                    self.sites[part.site.name] = (of_a, of_b)
        # What makes autograd go through layers whose own weights are nothing to it.
        self.spark = torch.zeros((), device=self.flat.device, requires_grad=True)

    def tensors(self) -> list[Tensor]:
        """Return the gradients of the adapter's parameters, in their order, as views."""
        return list(self._tensors)


@dataclass(eq=False)
class ReadyFactors:
    """Factors of an adapter that no one trains, for many calls with few tokens, in which views and copies would cost.

    Attributes:
        marks: address and version of each tensor that they are of.
        factors: by layer name (A, B, scale).
    """

    marks: tuple[tuple[int, int], ...] = ()
    factors: Mapping[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict)
    _joined: dict[tuple[str, ...], tuple[Tensor, Tensor] | None] = field(default_factory=dict)

    def joined(self, names: tuple[str, ...], sizes: Sequence[int]) -> tuple[Tensor, Tensor] | None:
        """Return the factors of layers that share their input as one pair.

        Args:
            names: the layers.
            sizes: outputs of each.

        Returns:
            (inputs, ranks) and (ranks, sum of outputs) with the scales in it and zeros between the layers; None where
            the adapter has no part in them, or so high a rank that the zeros would cost more than the calls.
        """
        if names not in self._joined:
            self._joined[names] = _join([self.factors.get(name) for name in names], sizes)
        return self._joined[names]


def _join(factors: Sequence[tuple[Tensor, Tensor, float] | None], sizes: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    ranks = sum(found[0].shape[0] for found in factors if found)
    if not 0 < ranks <= _MOST_JOINED:
        return None
    down = torch.cat([found[0] for found in factors if found]).t().contiguous()
    up, row, column = down.new_zeros(ranks, sum(sizes)), 0, 0
    for found, size in zip(factors, sizes, strict=True):
        if found:
            a, b, scale = found
            up[row : row + len(a), column : column + size] = b.t() * scale
            row += len(a)
        column += size
    return down, up


class LoraBank:
    """The adapters of one frozen model, by name.

    Args:
        model: the model; its weights lose their gradients.
        device: where adapters are made.
    """

    def __init__(self, model: AdaptableModel, device: torch.device | str | None = None) -> None:
        model.requires_grad_(False)
        self.sites = model.linear_sites()
        self.device = device
        self._adapters: dict[str, LoraAdapter] = {}

    def create(self, name: str, settings: LoraSettings) -> LoraAdapter:
        """Make an adapter that changes nothing yet.

        Args:
            name: name that no other adapter has.
            settings: its rank, scale and layers.

        Returns:
            The adapter, whose parameters an optimizer takes.

        Raises:
            ValueError: the model has no layer of these targets, or the name is taken.
        """
        sites = [site for site in self.sites if site.target in settings.targets]
        if not sites:
            raise ValueError(f"the model has no layers for LoRA targets {', '.join(settings.targets)}")
        parts = [SitePart(site, settings.rank, settings.alpha, settings.rslora) for site in sites]
        adapter = LoraAdapter(parts, self.device)
        adapter.draw(settings.seed)
        return self.add(name, adapter)

    def add(self, name: str, adapter: LoraAdapter) -> LoraAdapter:
        """Take in an adapter that was made elsewhere, such as one read from files.

        Args:
            name: name that no other adapter has.
            adapter: the adapter.

        Returns:
            The same adapter.

        Raises:
            ValueError: the name is taken, or the adapter is of a model of another size.
        """
        if name in self._adapters:
            raise ValueError(f"there is an adapter {name!r} already")
        strange = [part.site.name for part in adapter.parts() if part.site not in self.sites]
        if strange:
            raise ValueError(f"adapter {name!r} is of another model: {strange[0]} is not there or has another size")
        self._adapters[name] = adapter
        return adapter

    def remove(self, name: str) -> None:
        """Forget an adapter. Raises KeyError with the known names where there is none of this name."""
        del self._adapters[self._known(name)]

    def names(self) -> list[str]:
        """Return the names of all adapters, oldest first."""
        return list(self._adapters)

    def __getitem__(self, name: str) -> LoraAdapter:
        return self._adapters[self._known(name)]

    def __contains__(self, name: str) -> bool:
        return name in self._adapters

    def rows(self, names: Iterable[str | None], lengths: Sequence[int]) -> "AdapterRows":
        """Say which adapter each row of a batch uses.

        Args:
            names: of each row the adapter's name, None for the model as it is.
            lengths: of each row the number of its tokens in the batch.

        Returns:
            What `CausalLM.hidden` and `CausalLM.logits` take.

        Raises:
            KeyError: a name is not known.
        """
        return AdapterRows(tuple(None if name is None else self[name] for name in names), tuple(lengths))

    def _known(self, name: str) -> str:
        if name not in self._adapters:
            raise KeyError(f"no adapter {name!r}; there are: {', '.join(self._adapters) or 'none'}")
        return name


@dataclass(frozen=True)
class AdapterRows:
    """Which adapter each row of a packed batch uses.

    Attributes:
        adapters: of each row its adapter; None for the model as it is.
        lengths: of each row the number of its tokens in the batch.
        parts: rows of each part of the batch whose products are made on their own, so that what a part gets has the
            bits that it has alone; empty where the batch is one.
        gradients: of adapters whose gradients go there, and not into their parameters.
    """

    adapters: tuple[LoraAdapter | None, ...]
    lengths: tuple[int, ...]
    parts: tuple[int, ...] = ()
    gradients: Mapping[LoraAdapter, LoraGradients] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.adapters) != len(self.lengths):
            raise ValueError(f"{len(self.adapters)} adapters for {len(self.lengths)} rows")
        if self.parts and sum(self.parts) != len(self.lengths):
            raise ValueError(f"parts of {sum(self.parts)} rows of a batch of {len(self.lengths)}")

    def with_lengths(self, lengths: Sequence[int]) -> "AdapterRows":
        """Return the same adapters for rows of other lengths, such as the tokens that logits are made of."""
        return replace(self, lengths=tuple(lengths))

    def segments(self) -> "Segments":
        """Return the runs of tokens that share an adapter; rows of one adapter are best put side by side."""
        runs: list[tuple[int, int, LoraAdapter | None]] = []
        firsts = set(accumulate(self.parts))  # rows that begin a part
        begin = 0
        for number, (adapter, length) in enumerate(zip(self.adapters, self.lengths, strict=True)):
            if runs and runs[-1][2] is adapter and number not in firsts:
                runs[-1] = (runs[-1][0], begin + length, adapter)
            else:
                runs.append((begin, begin + length, adapter))
            begin += length
        known = {id(adapter): self._known(adapter) for _, _, adapter in runs if adapter is not None}
        found = tuple(Segment(start, stop, *known[id(adapter)]) for start, stop, adapter in runs
                      if adapter is not None and stop > start)  # fmt: skip
        ends = [0, *accumulate(self.lengths)]
        edges = [ends[row] for row in (0, *accumulate(self.parts))]
        return Segments(found, tuple((start, stop) for start, stop in pairwise(edges) if stop > start))

    def _known(
        self, adapter: LoraAdapter
    ) -> tuple[Mapping[str, tuple[Tensor, Tensor, float]], ReadyFactors | None, LoraGradients | None]:
        gradients = self.gradients.get(adapter) if torch.is_grad_enabled() else None
        if gradients is not None:
            return gradients.factors, None, gradients
        ready = adapter.ready_factors()
        return (adapter.factors() if ready is None else ready.factors), ready, None


@dataclass(frozen=True)
class Segment:
    """A run of tokens that share an adapter.

    Attributes:
        start: first token.
        stop: token after the last.
        factors: by layer name (A, B, scale).
        ready: the same for few tokens; None where the adapter is trained.
        gradients: where the factors' gradients go; None where they are autograd's.
    """

    start: int
    stop: int
    factors: Mapping[str, tuple[Tensor, Tensor, float]]
    ready: ReadyFactors | None = None
    gradients: LoraGradients | None = None


@dataclass(frozen=True)
class Segments:
    """What of a batch has which adapter.

    Attributes:
        runs: runs of tokens with an adapter.
        spans: tokens (start, stop) of each part whose products are made on their own; empty where the batch is one.
    """

    runs: tuple[Segment, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


NO_SEGMENTS = Segments()


def adapted_linears(
    inputs: Tensor, layers: Sequence[tuple[str, Tensor, Tensor | None]], segments: Segments
) -> list[Tensor]:
    """Apply linear layers that share their input, each with what adapters add to it.

    Args:
        inputs: (T, inputs).
        layers: of each layer its name, weight (outputs, inputs) and bias or None.
        segments: runs of tokens with an adapter.

    Returns:
        Of each layer its outputs (T, outputs), in the dtype of `inputs`.
    """
    parts, spans = _parts_of([name for name, _, _ in layers], segments.runs), segments.spans
    weights = [weight for _, weight, _ in layers]
    trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if not parts and (trained or not spans):
        return [functional.linear(inputs, weight, bias) for _, weight, bias in layers]
    if trained:
        return [_adapted(functional.linear(inputs, weight, bias), inputs, parts, index)
                for index, (_, weight, bias) in enumerate(layers)]  # fmt: skip
    if not torch.is_grad_enabled():
        outputs = [_linear(inputs, weight, bias, spans) for _, weight, bias in layers]
        for part in parts:
            _add(outputs, inputs, part)
        return outputs
    factors = [tensor for part in parts for found in part.factors if found for tensor in found[:2]]
    spark = next((part.gradients.spark for part in parts if part.gradients is not None), None)
    plan = _Plan(tuple((part.start, part.stop, tuple(found[2] if found else None for found in part.factors))
                       for part in parts), len(layers), spans, tuple(part.sinks for part in parts))  # fmt: skip
    return list(_AdaptedLinears.apply(plan, spark, inputs, *weights, *(bias for _, _, bias in layers), *factors))


def each_apart(product: Callable[[Tensor], Tensor], inputs: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Return the product of each part of the inputs (T, inputs), end to end; of all at once where there are no parts.

    How a product rounds depends on the number of its rows. Made apart, each part has the bits that it has alone.
    """
    if len(spans) < 2:
        return product(inputs)
    return torch.cat([product(inputs[start:stop]) for start, stop in spans])


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Apply a frozen linear layer, to each part on its own; without gradients."""
    if not spans:
        return functional.linear(inputs, weight, bias)
    outputs = inputs.new_empty(len(inputs), len(weight))
    for start, stop in spans:
        if bias is None:
            torch.mm(inputs[start:stop], weight.t(), out=outputs[start:stop])
        else:
            torch.addmm(bias, inputs[start:stop], weight.t(), out=outputs[start:stop])
    return outputs


def add_adapters(
    together: Tensor, sizes: Sequence[int], inputs: Tensor, names: Sequence[str], segments: Segments
) -> None:
    """Add in place what adapters add to the outputs of linear layers that share their input; without gradients.

    Args:
        together: (T, sum of outputs), the layers' outputs side by side.
        sizes: outputs of each layer.
        inputs: (T, inputs).
        names: of each layer its name.
        segments: runs of tokens with an adapter.
    """
    for segment in segments.runs:
        joined = None if segment.ready is None else segment.ready.joined(tuple(names), sizes)
        if joined is None:
            for part in _parts_of(names, [segment]):
                _add(together.split(sizes, dim=1), inputs, part)
            continue
        down, up = joined
        low = torch.mm(inputs[segment.start : segment.stop].float(), down)
        if together.dtype == torch.float32:
            together[segment.start : segment.stop].addmm_(low, up)
        else:
            together[segment.start : segment.stop] += torch.mm(low, up)


def _parts_of(names: Sequence[str], segments: Sequence[Segment]) -> list["_SegmentPart"]:
    return [_SegmentPart(segment.start, segment.stop, tuple(segment.factors.get(name) for name in names),
                         segment.gradients, tuple(names))
            for segment in segments if any(name in segment.factors for name in names)]  # fmt: skip


def _add(outputs: Sequence[Tensor], inputs: Tensor, part: "_SegmentPart") -> Tensor:
    """Add to the outputs of a run of tokens; returns what A made of the inputs, of all layers side by side."""
    rows = inputs[part.start : part.stop].float()
    low = torch.mm(rows, _joined([found[0] for found in part.factors if found]).t())
    begin = 0
    for output, found in zip(outputs, part.factors, strict=True):
        if found is None:
            continue
        a, b, scale = found
        mine = low[:, begin : begin + a.shape[0]]
        begin += a.shape[0]
        if output.dtype == torch.float32:
            output[part.start : part.stop].addmm_(mine, b.t(), alpha=scale)
        else:
            output[part.start : part.stop] += torch.mm(mine, b.t()).mul_(scale)
    return low


@dataclass(frozen=True)
class _SegmentPart:
    start: int
    stop: int
    factors: tuple[tuple[Tensor, Tensor, float] | None, ...]  # of each layer
    gradients: LoraGradients | None = None
    names: tuple[str, ...] = ()

    @property
    def sinks(self) -> "tuple[tuple[Tensor, Tensor], ...] | None":
        """Where the gradients of A and B of each layer go that has any; None where they are autograd's."""
        if self.gradients is None:
            return None
        return tuple(self.gradients.sites[name] for name, found in zip(self.names, self.factors, strict=True) if found)


@dataclass(frozen=True)
class _Plan:
    segments: tuple[tuple[int, int, tuple[float | None, ...]], ...]  # start, stop, each layer's scale
    layers: int
    spans: tuple[tuple[int, int], ...]
    sinks: tuple[tuple[tuple[Tensor, Tensor], ...] | None, ...]  # of each segment


def _adapted(outputs: Tensor, inputs: Tensor, parts: Sequence[_SegmentPart], index: int) -> Tensor:
    """Return what autograd can follow also into the base weight; slower than `_AdaptedLinears`."""
    added = torch.zeros(outputs.shape, device=outputs.device)
    for part in parts:
        found = part.factors[index]
        if found:
            a, b, scale = found
            change = functional.linear(functional.linear(inputs[part.start : part.stop].float(), a), b) * scale
            added = torch.cat([added[: part.start], change, added[part.stop :]])
    return outputs + added.to(outputs.dtype)


class _AdaptedLinears(torch.autograd.Function):
    """Frozen linear layers of one input and their adapters: no pass over the outputs but the products themselves.

    What autograd would do by itself keeps each product, adds them by passes of their own, and sums the gradients of
    the input in three more.
    """

    @staticmethod
    def forward(ctx, plan: _Plan, spark: Tensor | None, inputs: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        weights, biases = tensors[: plan.layers], tensors[plan.layers : 2 * plan.layers]
        factors = iter(tensors[2 * plan.layers :])
        outputs = [_linear(inputs, weight, bias, plan.spans) for weight, bias in zip(weights, biases, strict=True)]
        kept = []
        for start, stop, scales in plan.segments:
            found = tuple((next(factors), next(factors), scale) if scale is not None else None for scale in scales)
            kept.append(_add(outputs, inputs, _SegmentPart(start, stop, found)))
        ctx.plan = plan
        ctx.save_for_backward(inputs, *weights, *tensors[2 * plan.layers :], *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        inputs, *rest = ctx.saved_tensors
        weights, kept = rest[: plan.layers], rest[len(rest) - len(plan.segments) :]
        factors = iter(rest[plan.layers : len(rest) - len(plan.segments)])
        into = _into(gradients, weights, plan.spans, inputs) if ctx.needs_input_grad[2] else None
        found: list[Tensor | None] = []
        for (start, stop, scales), sinks, low in zip(plan.segments, plan.sinks, kept, strict=True):
            pairs = [(next(factors), next(factors)) if scale is not None else None for scale in scales]
            rows = inputs[start:stop].float()
            low_gradient = torch.empty_like(low)
            own = iter(sinks or ())
            begin = 0
            for gradient, pair, scale in zip(gradients, pairs, scales, strict=True):
                if pair is None:
                    continue
                end = begin + pair[0].shape[0]
                of_rows, mine = gradient[start:stop].float(), low_gradient[:, begin:end]
                torch.mm(of_rows, pair[1] * scale, out=mine)
                if sinks is None:
                    up = torch.mm(of_rows.t(), low[:, begin:end]).mul_(scale)
                    found += [torch.mm(mine.t(), rows), up]
                else:
                    of_a, of_b = next(own)
                    of_b.addmm_(of_rows.t(), low[:, begin:end], alpha=scale)
                    of_a.addmm_(mine.t(), rows)
                begin = end
            if into is not None:
                downs = _joined([pair[0] for pair in pairs if pair])
                if into.dtype == torch.float32:
                    into[start:stop].addmm_(low_gradient, downs)
                else:
                    into[start:stop] += torch.mm(low_gradient, downs)
            if sinks is not None:
                found += [None] * (2 * len(sinks))
        return (None, None, into, *[None] * (2 * plan.layers), *found)


def _into(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], spans: Sequence[tuple[int, int]], inputs: Tensor
) -> Tensor:
    """Return the gradient of the inputs through the frozen weights."""
    into = inputs.new_empty(inputs.shape)
    for start, stop in spans or ((0, len(inputs)),):
        part = into[start:stop]
        torch.mm(gradients[0][start:stop], weights[0], out=part)
        for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
            part.addmm_(gradient[start:stop], weight)
    return into


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
