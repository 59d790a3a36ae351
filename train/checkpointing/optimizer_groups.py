"""What training makes of parameters: those that are frozen or thawed, and groups that an optimizer gets on the way."""

from collections.abc import Callable, Mapping

from torch import nn
from torch.optim import Optimizer

from train.weights import plain_name


def named_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters of modules by the modules' paths and their plain names, each by all its names.

    Args:
        modules: modules by path.
    """
    return {
        f"{path}.{plain_name(name)}": parameter
        for path, module in modules.items()
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


class TrainableFlags:
    """Which parameters require a gradient, where that has changed since the trainer was built.

    Args:
        modules: function that gives all modules of the trainer by path.
    """

    def __init__(self, modules: Callable[[], Mapping[str, nn.Module]]) -> None:
        self._modules = modules
        self._first = self._flags()

    def state_dict(self) -> dict[str, bool]:
        """Return the flags that have changed, by the parameters' names."""
        return {name: flag for name, flag in self._flags().items() if self._first.get(name, flag) is not flag}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Go on from a `state_dict`. What it doesn't have becomes what it was when the trainer was built."""
        for name, parameter in named_parameters(self._modules()).items():
            flag = state.get(name, self._first.get(name))
            if flag is not None and parameter.requires_grad is not flag:
                parameter.requires_grad_(flag)

    def _flags(self) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in named_parameters(self._modules()).items()}


class OptimizerGroups:
    """The parameter groups of optimizers, where they have changed since the trainer was built.

    Args:
        optimizers: function that gives all optimizers of the trainer by path.
        modules: function that gives all modules of the trainer by path.
    """

    def __init__(
        self,
        optimizers: Callable[[], Mapping[str, Optimizer]],
        modules: Callable[[], Mapping[str, nn.Module]],
    ) -> None:
        self._optimizers, self._modules = optimizers, modules
        self._first = {path: _sizes(optimizer) for path, optimizer in optimizers().items()}

    def state_dict(self) -> dict[str, list[list[str]]]:
        """Return the names of each group's parameters, of optimizers that have other groups than at first."""
        changed = {
            path: optimizer
            for path, optimizer in self._optimizers().items()
            if _sizes(optimizer) != self._first.get(path)
        }
        if not changed:
            return {}
        names = {id(parameter): name for name, parameter in reversed(named_parameters(self._modules()).items())}
        return {
            path: [[names.get(id(parameter), "") for parameter in group["params"]] for group in optimizer.param_groups]
            for path, optimizer in changed.items()
        }

    def load_state_dict(self, state: dict[str, list[list[str]]]) -> None:
        """Give optimizers the groups of a `state_dict`, before their own states come.

        Raises:
            ValueError: the groups that an optimizer has are not the first ones of those, or parameters are not there.
        """
        optimizers = self._optimizers()
        for path in {*state, *self._first} & optimizers.keys():
            if path in state:
                self._add_groups(path, optimizers[path], state[path])
            elif len(optimizers[path].param_groups) > len(self._first[path]):  # steps on probation have added some
                del optimizers[path].param_groups[len(self._first[path]) :]

    def _add_groups(self, path: str, optimizer: Optimizer, groups: list[list[str]]) -> None:
        parameters = named_parameters(self._modules())
        known = {id(parameter): name for name, parameter in reversed(parameters.items())}
        for number, names in enumerate(groups):
            if number < len(optimizer.param_groups):
                own = [known.get(id(parameter), "") for parameter in optimizer.param_groups[number]["params"]]
                if own != names:
                    raise ValueError(
                        f"the run has changed parameter group {number} of {path} while training, and it can't be built "
                        "from the one that __init__ makes; only groups that add_param_group adds can"
                    )
                continue
            missing = [name or "one outside of the trainer's modules" for name in names if name not in parameters]
            if missing:
                raise ValueError(
                    f"the run has added parameter group {number} to {path} while training, and its parameter "
                    f"{missing[0]} is not among those of the trainer's modules now"
                )
            optimizer.add_param_group({"params": [parameters[name] for name in names]})


def _sizes(optimizer: Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]
