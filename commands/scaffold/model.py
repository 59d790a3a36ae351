"""Imports the model that a trainer is made for."""

import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from constants import PROJECT_ROOT
from train.errors import ScaffoldError


def load_model_class(target: str) -> type[nn.Module]:
    """Import a model.

    Args:
        target: address of the model's class, `package.module:ClassName`.

    Raises:
        ScaffoldError: it can't be imported, or is no nn.Module; the text says why.
    """
    module_name, _, attribute = target.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not attribute.isidentifier():
        raise ScaffoldError(f"--model {target}: must be package.module:ClassName, such as model.my_model:MyModel.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ScaffoldError(
                f"--model {target}: there is no module {error.name}{_near_modules(error.name)}"
            ) from None
        raise _import_failed(target, module_name, error) from error
    except (Exception, SystemExit) as error:  # whatever a user's module does
        raise _import_failed(target, module_name, error) from error
    found = getattr(module, attribute, None)
    if found is None:
        known = [name for name, thing in vars(module).items() if isinstance(thing, type)]
        own = [name for name in known if vars(module)[name].__module__ == module_name]
        near = get_close_matches(attribute, known, n=3, cutoff=0.5) or own[:5]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; it has no class."
        raise ScaffoldError(f"--model {target}: module {module_name} has no {attribute}{hint}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ScaffoldError(f"--model {target}: {attribute} is not a subclass of torch.nn.Module.")
    return found


def _near_modules(name: str) -> str:
    package, _, last = name.rpartition(".")
    folders = list(importlib.import_module(package).__path__) if package in sys.modules else [str(PROJECT_ROOT)]
    known = [module.name for module in pkgutil.iter_modules(folders)]
    near = get_close_matches(last, known, n=3, cutoff=0.5)
    dotted = [f"{package}.{each}" if package else each for each in near]
    return f"; did you mean {' or '.join(dotted)}?" if dotted else f" (looked in {', '.join(folders)})."


def _import_failed(target: str, module_name: str, error: BaseException) -> ScaffoldError:
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{_shown(error.filename)}:{error.lineno}"
    else:
        spec = importlib.util.find_spec(module_name.partition(".")[0])
        own = str(Path(spec.origin).parent) if spec and spec.origin else str(PROJECT_ROOT)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(own)]
        frames = [frame for frame in frames if frame.filename != __file__]
        place = f"{_shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else module_name
    return ScaffoldError(f"--model {target}: its import fails at {place}: {type(error).__name__}: {error}")


def _shown(path: str) -> str:
    return path.removeprefix(f"{PROJECT_ROOT}/")
