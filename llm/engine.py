"""The engine: adapters of one frozen base model that are trained, kept in versions and sampled from.

It is what a service and a trainer of agents drive. One thread may use it. On a CPU the same calls give the same bits.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from constants.counting import counted
from llm.adam import AdamSettings, Moments, adam, no_moments
from llm.base_model import BaseModel
from llm.engine_error import EngineError, NonFiniteError, PassFailedError, UnknownAdapterError
from llm.loss_pass import LossRequest, LossResult, LossRow, LossWork, all_finite, first_not_finite, run_passes
from llm.sample_result import Sample
from llm.sampling import Sampler, SamplerLimits
from llm.sampling_settings import SampleRequest
from model.flat_tensors import flattened, views
from model.lora import LoraAdapter, LoraBank, LoraSettings
from model.token_losses import LOSS_INPUTS, require_loss


@dataclass(frozen=True)
class EngineLimits:
    """What an engine takes.

    Attributes:
        adapters: adapters at a time.
        rank: greatest rank of an adapter.
        rows: rows of one call.
        tokens: tokens of one call, over its rows.
        pass_tokens: tokens that go through the model together; activations of so many are in memory at a time. A
            longer row goes alone.
    """

    adapters: int = 64
    rank: int = 256
    rows: int = 16384
    tokens: int = 4_000_000
    pass_tokens: int = 1024


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step did.

    Attributes:
        step: steps that the adapter has made.
        gradient_norm: L2 norm of the whole gradient before clipping.
        skipped: whether there was no gradient, so that nothing was changed.
    """

    step: int
    gradient_norm: float
    skipped: bool


@dataclass(frozen=True)
class AdapterInfo:
    """What there is to know of an adapter.

    Attributes:
        name: its name.
        rank: its greatest rank.
        targets: kinds of layers that it changes.
        step: optimizer steps that it has made.
        parameters: numbers that are trained.
    """

    name: str
    rank: int
    targets: tuple[str, ...]
    step: int
    parameters: int


@dataclass
class AdapterState:
    """An adapter as it was at one moment, to go on from.

    Attributes:
        adapter: its weights; never changed.
        step: optimizer steps that it had made.
        moments: of each parameter the mean and the mean squared gradient; None without the optimizer's state.
        gradients: of each parameter the gradient of the calls since the last step; None for none.
    """

    adapter: LoraAdapter
    step: int = 0
    moments: list[Moments] | None = None
    gradients: list[Tensor] | None = None


@dataclass
class _Trained:
    adapter: LoraAdapter
    step: int = 0
    gradients: list[Tensor] | None = None  # of all calls since the last step
    moments: list[Moments] | None = None  # None before the first step
    version: str | None = None  # of the weights as they are, where somebody has asked for it


class Engine:
    """Adapters of one frozen model.

    No tensor of an adapter is ever changed in place: a step makes new ones. So a version costs nothing until the
    adapter moves on, and stays what it is.

    Args:
        base: the model.
        limits: what the engine takes.
        sampler_limits: what its sampler does at a time.
    """

    def __init__(
        self, base: BaseModel, limits: EngineLimits | None = None, sampler_limits: SamplerLimits | None = None
    ) -> None:
        self.base = base
        self.limits, self.sampler_limits = limits or EngineLimits(), sampler_limits
        self.device = next(base.model.parameters()).device
        self.bank = LoraBank(base.model, self.device)
        self.vocabulary = base.vocabulary
        self._trained: dict[str, _Trained] = {}
        self._holders: dict[str, int] = {}  # of each version

    # -------------------------------------------------------------------------------------------------------- adapters

    def create(self, name: str, settings: LoraSettings) -> AdapterInfo:
        """Make an adapter, whose outputs are the base model's until it is trained.

        Args:
            name: name that no other adapter has.
            settings: rank, scale, layers and seed.

        Raises:
            EngineError: the name is taken, or the settings are not allowed.
        """
        self._require_place(name, settings.rank)
        try:
            self._trained[name] = _Trained(self.bank.create(name, settings))
        except ValueError as error:
            raise EngineError(str(error)) from error
        return self.info(name)

    def create_from(self, name: str, state: AdapterState, optimizer: bool) -> AdapterInfo:
        """Make an adapter that goes on from another's state.

        Args:
            name: name that no other adapter has.
            state: what `state` gave, of this base model.
            optimizer: whether the optimizer goes on too; else its moments start at zero, and its steps are counted
                from 0.

        Raises:
            EngineError: the name is taken, the state is of another model, or it has no optimizer.
        """
        self._require_place(name, max((part.rank for part in state.adapter.parts()), default=0))
        entry = self._entry_of(state, optimizer)
        try:
            self.bank.add(name, entry.adapter)
        except ValueError as error:
            raise EngineError(str(error)) from error
        self._trained[name] = entry
        return self.info(name)

    def put_back(self, name: str, state: AdapterState, optimizer: bool) -> AdapterInfo:
        """Let an adapter go on from a state: its own of before, or another's of the same sizes.

        Its gradients that no step has used are dropped.

        Args:
            name: name of the adapter.
            state: what `state` gave.
            optimizer: whether the optimizer goes on too; else its moments start at zero, and its steps are counted
                from 0.

        Raises:
            EngineError: the state is of another model or other sizes, or it has no optimizer.
        """
        old = self._entry(name)
        if old.adapter.parts() != state.adapter.parts():
            raise EngineError(f"the state has other layers, ranks or scales than adapter {name!r}")
        entry = self._entry_of(state, optimizer)
        self.bank.remove(name)
        self.bank.add(name, entry.adapter)
        self._trained[name] = entry
        return self.info(name)

    def state(self, name: str, optimizer: bool = True, gradients: bool = False) -> AdapterState:
        """Return an adapter as it is now; it costs no copy.

        Args:
            name: name of the adapter.
            optimizer: whether the optimizer's moments are wanted.
            gradients: whether gradients are wanted that no step has used; only with the optimizer.
        """
        entry = self._entry(name)
        frozen = entry.adapter.sharing()
        if not optimizer:
            return AdapterState(frozen, entry.step)
        moments = entry.moments or [no_moments(each) for each in frozen.parameters()]
        return AdapterState(frozen, entry.step, list(moments), entry.gradients if gradients else None)

    def delete(self, name: str) -> None:
        """Forget an adapter. Versions of it that somebody holds stay.

        Raises:
            UnknownAdapterError: there is none of this name.
        """
        self._entry(name)
        self.bank.remove(name)
        del self._trained[name]

    def names(self) -> list[str]:
        """Return the names of all adapters, oldest first."""
        return list(self._trained)

    def info(self, name: str) -> AdapterInfo:
        """Return what there is to know of an adapter."""
        entry = self._entry(name)
        parts = entry.adapter.parts()
        return AdapterInfo(
            name,
            max(part.rank for part in parts),
            tuple(dict.fromkeys(part.site.target for part in parts)),
            entry.step,
            sum((part.site.inputs + part.site.outputs) * part.rank for part in parts),
        )

    # -------------------------------------------------------------------------------------------------------- versions

    def hold_version(self, name: str) -> str:
        """Keep an adapter's weights as they are now, under a name of their own, until `release_version`.

        Args:
            name: name of the adapter.

        Returns:
            The version: a digest of the base model and the weights, so that the same weights have the same name always
            and everywhere. It stands in for an adapter's name wherever nothing is trained.
        """
        entry = self._entry(name)
        if entry.version is None:
            entry.version = version_of(self.base.digest, entry.adapter)
        return self._hold(entry.version, entry.adapter)

    def hold_weights(self, adapter: LoraAdapter) -> str:
        """Keep weights that were saved, as `hold_version` keeps those of an adapter that is trained.

        Args:
            adapter: the weights; nobody changes them any more.

        Returns:
            The version.
        """
        return self._hold(version_of(self.base.digest, adapter), adapter)

    def _hold(self, version: str, adapter: LoraAdapter) -> str:
        if version not in self._holders:
            self.bank.add(version, adapter.sharing())
        self._holders[version] = self._holders.get(version, 0) + 1
        return version

    def release_version(self, version: str) -> None:
        """Say that a holder of a version needs it no more; without holders it is forgotten.

        Raises:
            UnknownAdapterError: nobody holds it.
        """
        if version not in self._holders:
            raise UnknownAdapterError(f"there is no version {version!r}")
        self._holders[version] -= 1
        if not self._holders[version]:
            del self._holders[version]
            self.bank.remove(version)

    def versions(self) -> list[str]:
        """Return the versions that are held."""
        return list(self._holders)

    # -------------------------------------------------------------------------------------------------------- sampling

    @cached_property
    def sampler(self) -> Sampler:
        """What samples from the base model, adapters and versions: for requests that come and go between its steps.

        A request has the weights that its adapter has when it is submitted; a training step meanwhile doesn't touch it.
        """
        return Sampler(self.base, self.bank, self.sampler_limits)

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Sample]]:
        """Sample to the end, together with whatever `sampler` has under way.

        Args:
            requests: prompts, each with the name of an adapter or a version; None for the base model.

        Returns:
            Of each request its samples.

        Raises:
            EngineError: a request can't be done, or failed.
        """
        return self.sampler.sample(requests)

    # -------------------------------------------------------------------------------------------------------- training

    def forward(
        self,
        adapter: str | None,
        rows: Sequence[LossRow],
        loss: str = "cross_entropy",
        config: Mapping[str, float] | None = None,
    ) -> LossResult:
        """Measure rows: log-probabilities and loss. Nothing is changed.

        Args:
            adapter: name of an adapter, or a version; None for the base model.
            rows: the rows.
            loss: name of the loss.
            config: settings of the loss that differ from the defaults.

        Raises:
            EngineError: the rows can't be used, or a number is not finite.
        """
        return self._one(LossRequest(adapter, rows, loss, config))

    def forward_backward(
        self,
        adapter: str,
        rows: Sequence[LossRow],
        loss: str = "cross_entropy",
        config: Mapping[str, float] | None = None,
    ) -> LossResult:
        """Measure rows and add the gradient of their loss to those of the calls since the last step.

        Args:
            adapter: name of the adapter.
            rows: the rows.
            loss: name of the loss.
            config: settings of the loss that differ from the defaults.

        Raises:
            EngineError: the rows can't be used, or a number is not finite; the gradients are as they were.
        """
        return self._one(LossRequest(adapter, rows, loss, config, backward=True))

    def run(self, requests: Sequence[LossRequest]) -> list[LossResult | EngineError]:
        """Do several requests, rows of several adapters in one pass where they fit.

        Each gives what it would alone: on a CPU the same bits, elsewhere up to rounding. One that fails leaves the
        others alone.

        Args:
            requests: the requests; of one adapter they are done in their order.

        Returns:
            Of each request its result, or why there is none.
        """
        results: dict[int, LossResult | EngineError] = {}
        for ended in self.running(requests):
            results |= ended
        return [results[number] for number in range(len(requests))]

    def running(self, requests: Sequence[LossRequest]) -> Iterator[dict[int, LossResult | EngineError]]:
        """Do several requests as `run` does, small ones first; after each pass something else may be done.

        Meanwhile the adapters must stay as they are.

        Args:
            requests: the requests.

        Yields:
            After each pass the results of those that have ended, or why there are none, by their number.
        """
        sound, wrong = [], {}
        for number, request in enumerate(requests):
            try:
                self._require_sound(request)
                sound.append(number)
            except EngineError as error:
                wrong[number] = error
        if wrong:
            yield dict(wrong)
        for together in _apart(sound, requests):
            left = list(together)
            try:
                for ended in self._run_together(requests, left):
                    left = [number for number in left if number not in ended]
                    yield ended
            except Exception as error:
                if len(together) == 1:
                    yield {together[0]: _failed(error)}
                    continue
                for number in left:  # so that only the one fails that is to blame
                    try:
                        yield from self._run_together(requests, [number])
                    except Exception as own:
                        yield {number: _failed(own)}

    def optimizer_step(self, name: str, settings: AdamSettings) -> StepResult:
        """Use and drop the gradients of the calls since the last step. Without any, nothing is changed.

        Args:
            name: name of the adapter.
            settings: of Adam.

        Raises:
            NonFiniteError: the gradients' sum or a new weight is not finite; the adapter is as it was, its gradients
                included.
        """
        entry = self._entry(name)
        if entry.gradients is None:
            return StepResult(entry.step, 0.0, skipped=True)
        names = [key for key, _ in entry.adapter.named_parameters()]
        old = [parameter.detach() for parameter in entry.adapter.parameters()]
        gradient = flattened(entry.gradients)  # so that a step is a dozen calls, and not hundreds
        norm = gradient.norm().item()  # synchronisation
        what = f"optimizer step {entry.step + 1} of adapter {name!r}"
        if not math.isfinite(norm):
            where = first_not_finite(names, entry.gradients) or "all tensors together"
            raise NonFiniteError(f"{what}: the gradient of {where} is not finite; the adapter is unchanged")
        if 0 < settings.grad_clip_norm < norm:
            gradient = gradient * (settings.grad_clip_norm / norm)
        weight = flattened(old)
        moments = no_moments(weight)
        if entry.moments is not None:
            means, variances = zip(*entry.moments, strict=True)
            moments = flattened(means), flattened(variances)
        weight, (mean, square) = adam(weight, gradient, moments, entry.step + 1, settings)
        new, squares = views(weight, old), views(square, old)
        if not (all_finite(weight) and all_finite(square)):  # synchronisation
            parts = [*names, *(f"the mean squared gradient of {key}" for key in names)]
            raise NonFiniteError(
                f"{what}: {first_not_finite(parts, [*new, *squares])} would not be finite at learning rate "
                f"{settings.learning_rate}; the adapter is unchanged"
            )
        _assign(entry.adapter, new)
        entry.moments = list(zip(views(mean, old), squares, strict=True))
        entry.gradients, entry.version = None, None
        entry.step += 1
        return StepResult(entry.step, norm, skipped=False)

    def drop_gradients(self, name: str) -> None:
        """Forget the gradients of the calls since the last step."""
        self._entry(name).gradients = None

    # ---------------------------------------------------------------------------------------------------------- checks

    def _entry(self, name: str) -> _Trained:
        if name not in self._trained:
            raise UnknownAdapterError(f"there is no adapter {name!r}; there are: {', '.join(self._trained) or 'none'}")
        return self._trained[name]

    def _adapter(self, request: LossRequest) -> LoraAdapter | None:
        if request.adapter is None:
            if request.backward:
                raise EngineError("the base model is not trained: name an adapter")
            return None
        if request.backward or request.adapter not in self._holders:
            return self._entry(request.adapter).adapter
        return self.bank[request.adapter]

    def _entry_of(self, state: AdapterState, optimizer: bool) -> _Trained:
        if optimizer and state.moments is None:
            raise EngineError("the state was saved without the optimizer: it can be loaded as weights only")
        adapter = state.adapter.sharing(trained=True).to(self.device)
        wrong = first_not_finite([key for key, _ in adapter.named_parameters()], list(adapter.parameters()))
        if wrong:
            raise NonFiniteError(f"{wrong} of the state is not finite")
        if not optimizer or state.moments is None:
            return _Trained(adapter)
        on_device = [(mean.to(self.device), square.to(self.device)) for mean, square in state.moments]
        gradients = None if state.gradients is None else [each.to(self.device) for each in state.gradients]
        return _Trained(adapter, state.step, gradients, on_device if state.step else None)

    def _require_place(self, name: str, rank: int) -> None:
        if name in self.bank:
            raise EngineError(f"there is an adapter {name!r} already")
        if len(self._trained) >= self.limits.adapters:
            most = counted(self.limits.adapters, "adapter")
            raise EngineError(f"the engine holds at most {most}: delete one, or raise the limit")
        if rank > self.limits.rank:
            raise EngineError(f"LoRA rank is {rank}; at most {self.limits.rank} is allowed here")

    def _require_sound(self, request: LossRequest) -> None:
        """Refuse a request that would fail inside, with what was given and what is allowed."""
        self._adapter(request)
        try:
            require_loss(request.loss, request.config)
        except ValueError as error:
            raise EngineError(str(error)) from error
        if not request.rows:
            raise EngineError("there are no rows")
        if len(request.rows) > self.limits.rows:
            raise EngineError(f"there are {len(request.rows)} rows; one call takes at most {self.limits.rows}")
        total = sum(len(row.tokens) for row in request.rows)
        if total > self.limits.tokens:
            raise EngineError(f"the rows have {total} tokens; one call takes at most {self.limits.tokens}")
        if not self._sound(request):  # looked at together, as row by row small requests would take longer than a pass
            for number, row in enumerate(request.rows):
                self._require_sound_row(f"row {number}", row, request.loss)

    def _sound(self, request: LossRequest) -> bool:
        """Whether all rows can be used; False also where that can't be told of all together."""
        rows, names = request.rows, LOSS_INPUTS[request.loss]
        for row in rows:
            shape = row.tokens.shape
            if len(shape) != 1 or not 0 < shape[0] <= self.base.context or row.targets.shape != shape:
                return False
            if any(name not in row.inputs or row.inputs[name].shape != shape for name in names):
                return False
            if row.tokens.dtype != torch.int64 or row.targets.dtype != torch.int64:
                return False
        ids = torch.cat([each for row in rows for each in (row.tokens, row.targets)])
        least, most = ids.aminmax()
        if least < 0 or most >= self.vocabulary:
            return False
        return all(all_finite(torch.cat([row.inputs[name] for row in rows]).float()) for name in names)

    def _require_sound_row(self, where: str, row: LossRow, loss: str) -> None:
        length, shape = len(row.tokens), tuple(row.targets.shape)
        if row.tokens.dim() != 1 or not length:
            raise EngineError(f"{where}: its tokens have the shape {tuple(row.tokens.shape)}; a row has 1 or more")
        if length > self.base.context:
            raise EngineError(f"{where} has {length} tokens; the model's context is {self.base.context}")
        if row.targets.dim() not in (1, 2) or shape[0] != length or 0 in shape:
            raise EngineError(f"{where}: its targets have the shape {shape}; allowed are ({length},) and ({length}, K)")
        if loss != "cross_entropy" and row.targets.dim() == 2:
            raise EngineError(f"{where}: the loss {loss} takes one target for each token, not {shape[1]}")
        for what, ids in (("token", row.tokens), ("target", row.targets)):
            if ids.dtype not in (torch.int64, torch.int32):
                raise EngineError(f"{where}: its {what}s are {ids.dtype}; they must be int64")
            wrong = ids[(ids < 0) | (ids >= self.vocabulary)]
            if len(wrong):
                raise EngineError(f"{where} has the {what} {wrong[0].item()}; ids go from 0 to {self.vocabulary - 1}")
        for name in LOSS_INPUTS[loss]:
            value = row.inputs.get(name)
            if value is None:
                raise EngineError(f"{where} has no {name}, which the loss {loss} needs")
            if tuple(value.shape) != shape:
                raise EngineError(f"{where}: {name} has the shape {tuple(value.shape)}, its targets {shape}")
            if not value.isfinite().all():
                raise EngineError(f"{where}: {name} has a number that is not finite")

    # -------------------------------------------------------------------------------------------------------- passes

    def _run_together(
        self, requests: Sequence[LossRequest], numbers: Sequence[int]
    ) -> Iterator[dict[int, LossResult | EngineError]]:
        left = {number: LossWork(requests[number], self._adapter(requests[number])) for number in numbers}
        for _ in run_passes(self.base.model, list(left.values()), self.limits.pass_tokens, self.device):
            over = {number: work for number, work in left.items() if work.complete}
            left = {number: work for number, work in left.items() if number not in over}
            yield {number: self._finish(work) for number, work in over.items()}

    def _one(self, request: LossRequest) -> LossResult:
        (result,) = self.run([request])
        if isinstance(result, EngineError):
            raise result
        return result

    def _finish(self, work: LossWork) -> LossResult | EngineError:
        """Take over what a request's passes have found, if all of it is finite."""
        request = work.request
        wrong = work.wrong()
        if wrong is not None:
            verb = "forward_backward" if request.backward else "forward"
            at = "the base model"
            if request.adapter is not None:
                step = f", step {self._trained[request.adapter].step + 1}" if request.adapter in self._trained else ""
                at = f"adapter {request.adapter!r}{step}"
            return NonFiniteError(f"{verb} of {at}: {wrong}; the adapter and its gradients are unchanged")
        if request.backward and request.adapter is not None and work.gradients is not None:
            entry, new = self._entry(request.adapter), work.gradients.tensors()
            entry.gradients = new if entry.gradients is None else list(torch._foreach_add(entry.gradients, new))
        return work.result()


def version_of(digest: str, adapter: LoraAdapter) -> str:
    """Return a name for an adapter's weights that no others have.

    Args:
        digest: digest of the base model.
        adapter: the adapter.

    Returns:
        24 hexadecimal digits: the same for the same weights, scales and base model.
    """
    whole = hashlib.sha256(digest.encode())
    for part, a, b in adapter.tensors():
        whole.update(f"{part.site.name} {part.rank} {part.scale!r}".encode())
        for tensor in (a, b):
            whole.update(tensor.detach().contiguous().cpu().numpy().tobytes())  # synchronisation
    return whole.hexdigest()[:24]


def _failed(error: Exception) -> PassFailedError:
    failed = PassFailedError(f"the pass failed: {error}")
    failed.__cause__ = error
    return failed


def _assign(adapter: LoraAdapter, weights: Sequence[Tensor]) -> None:
    """Put other tensors in the place of an adapter's, in the order of its parameters."""
    names = [name for name, _ in adapter.named_parameters()]
    adapter.load_state_dict(dict(zip(names, weights, strict=True)), assign=True)
    adapter.requires_grad_(True)


def _apart(numbers: Sequence[int], requests: Sequence[LossRequest]) -> Iterator[list[int]]:
    """Yield requests that may be done together: of those that train the same adapter each waits for the last."""
    waiting = list(numbers)
    while waiting:
        taken: set[str | None] = set()
        together, later = [], []
        for number in waiting:
            request = requests[number]
            if request.backward and request.adapter in taken:
                later.append(number)
                continue
            together.append(number)
            if request.backward:
                taken.add(request.adapter)
        yield together
        waiting = later
