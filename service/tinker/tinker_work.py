"""Requests of a model, from their bytes to the work that the engine's thread does: the same now and after a start."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.tinker.tinker_fields import Fields, read_json
from service.tinker.tinker_messages import (
    Answer,
    CreateModel,
    Envelope,
    LoadWeights,
    SaveWeights,
    adam_settings,
    loss_request,
    loss_request_of_protobuf,
)
from service.tinker.tinker_models import TinkerModels
from service.tinker.training_queue import Step, TrainingQueue, Work
from service.web.tinker_error import TinkerError

_LOG = logging.getLogger(__name__)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Asked:
    """A request that has a place in a model's order.

    Attributes:
        model: id of the model.
        number: its place; None for the next.
        work: what is to be done, even where the contents are wrong: that is what comes of it then.
        opens: whether it makes the model.
        require: refuses it where it can't be taken in at all, by a `TinkerError`.
    """

    model: str
    number: int | None
    work: Work
    opens: bool = False
    require: Callable[[], None] = _nothing


class TinkerWork:
    """Reads requests.

    Args:
        models: what they change.
        queue: what knows the orders of models.
    """

    def __init__(self, models: TinkerModels, queue: TrainingQueue) -> None:
        self._models, self._queue = models, queue

    def read(self, what: str, body: bytes, protobuf: bool = False) -> Asked:
        """Read a request.

        Args:
            what: the end of its route, such as optim_step.
            body: its body.
            protobuf: whether the body is protobuf.

        Raises:
            TinkerError: it isn't known whose it is.
        """
        if protobuf:
            envelope, loss = loss_request_of_protobuf(body)
            return Asked(envelope.model, envelope.number, _or_refused(lambda: loss))
        fields = read_json(body)
        if what == "create_model":
            return self._create(CreateModel.of(fields))
        if what == "load_weights" and not Fields(fields).has("model_id"):
            return self._create_from(LoadWeights.of(fields))
        if what == "unload_model":
            id = Fields(fields).text("model_id")
            return Asked(id, None, partial(self._unload, id))
        envelope = Envelope.of(fields)
        id = envelope.model

        def work() -> "Work | TinkerError":
            if what in ("forward", "forward_backward"):
                return loss_request(fields, backward=what == "forward_backward")
            if what == "optim_step":
                return Step(partial(self._models.step, id, adam_settings(fields)))
            if what == "load_weights":
                return partial(self._models.load, id, LoadWeights.of(fields))
            for_sampler, external = what == "save_weights_for_sampler", what == "save_weights_external"
            return partial(self._models.save, id, SaveWeights.of(fields, for_sampler, external), for_sampler)

        return Asked(id, envelope.number, _or_refused(work))

    def _create(self, asked: CreateModel) -> Asked:
        def require() -> None:
            self._models.require_session(asked.session)
            self._models.require_base(asked.base_model)

        id = model_id(asked.session, asked.number)
        return Asked(id, 0, partial(self._open, id, partial(self._models.create, id, asked)), True, require)

    def _create_from(self, asked: LoadWeights) -> Asked:
        session = asked.session or ""

        def require() -> None:
            self._models.require_session(session)
            self._models.checkpoint(asked.path)

        id = model_id(session, asked.number)
        return Asked(id, 0, partial(self._open, id, partial(self._models.load, id, asked)), True, require)

    def _open(self, id: str, work: Callable[[], Answer]) -> Answer:
        """Make a model; where it can't be made, there is none."""
        try:
            return work()
        except BaseException:
            self._queue.close_model(id)
            raise

    def _unload(self, id: str) -> Answer:
        self._queue.close_model(id)
        return self._models.unload(id)


def model_id(session: str, number: int) -> str:
    """Return a model's id, which clients work out themselves."""
    return f"{session}:train:{number}"


def _or_refused(work: Callable[[], "Work | TinkerError"]) -> Work:
    """Return work; where its request is wrong, work that says so in its turn."""
    try:
        found = work()
    except TinkerError as error:
        found = error
    except Exception as error:  # whatever is wrong with our reading, the request's number is used
        _LOG.exception("a request could not be read")
        found = TinkerError(f"the service could not read the request: {error}", category="server")
    return partial(_refuse, found) if isinstance(found, TinkerError) else found


def _refuse(error: TinkerError) -> Answer:
    raise error
