"""Arguments that torch doesn't have, told as such: code from older days meets a newer torch."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

_UNEXPECTED = re.compile(r"^(?P<what>[\w.]+)\(\) got an unexpected keyword argument '(?P<name>\w+)'")
# What torch has had before, and what does the same now.
_REMOVED = {
    "verbose": "train.log and metrics.json have each epoch's learning rate",
    "size_average": "reduction='mean' or 'sum' says the same",
    "reduce": "reduction='none' or 'mean' says the same",
}
# What other libraries, and config.ini, call torch's arguments.
_ELSEWHERE = {"learning_rate": "lr", "wd": "weight_decay", "l2": "weight_decay", "epsilon": "eps", "dropout_rate": "p"}


def explain_torch_argument(error: TypeError) -> str | None:
    """Say of an unexpected argument that this torch doesn't have it.

    Args:
        error: what a call has raised.

    Returns:
        What to do; None where the call is none of torch's.
    """
    found = _UNEXPECTED.match(str(error))
    if found is None:
        return None
    owner, name = found["what"].removesuffix(".__init__").rpartition(".")[2], found["name"]
    called = next(_named(owner), None)
    if called is None:
        return None
    version = torch.__version__.partition("+")[0]
    takes = [key for key in inspect.signature(called).parameters if key not in ("self", "args", "kwargs")]
    lacks = f"{owner} has no argument '{name}' in torch {version}"
    if name in _REMOVED:
        return f"{lacks}: torch has removed it. Leave it out; {_REMOVED[name]}."
    known = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in takes else []
    near = known or difflib.get_close_matches(name, takes, n=1)
    meant = f"did you mean '{near[0]}'? " if near else "a release of torch may have removed it: leave it out. "
    return f"{lacks}; {meant}It takes {', '.join(takes)}."


def _named(name: str) -> Iterator[Callable[..., Any]]:
    """Yield what is public in torch under a name, and can be called."""
    places = (torch.optim.lr_scheduler, torch.optim, torch.nn, torch.nn.functional, torch.utils.data, torch.nn.utils)
    for place in places:
        found = getattr(place, name, None)
        if callable(found):
            yield found
