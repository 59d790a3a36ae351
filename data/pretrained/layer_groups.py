"""The parameters of a network in groups from its input to its head, for rates that grow from layer to layer."""

from torch import nn

_MOST_OF_ALL = 0.3  # a module with a larger share of the parameters is taken apart
_LEAST_OF_ALL = 0.002  # a group with a smaller share joins the one before it


def layer_groups(network: nn.Module, heads: tuple[str, ...]) -> list[list[str]]:
    """Put the parameters of a network in groups, by its blocks, in the order in which they are defined.

    Lists of blocks are taken apart, and so is a module that holds most of the parameters. What lies between two blocks
    (a normalisation, a token) goes with the block before it.

    Args:
        network: network with its head.
        heads: names of the modules of the head.

    Returns:
        Names of parameters; each once; the last group is the head.
    """
    of_head = [name for name, _ in network.named_parameters() if name.startswith(tuple(f"{head}." for head in heads))]
    rest = {name for name, _ in network.named_parameters()} - set(of_head)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters() if name in rest}
    total = sum(sizes.values())
    groups: list[list[str]] = []
    for names in _blocks(network, "", sizes, total):
        few = sum(sizes[name] for name in names) < _LEAST_OF_ALL * total
        if groups and few:
            groups[-1] += names
        elif names:
            groups.append(names)
    return [*groups, of_head] if of_head else groups


def _blocks(module: nn.Module, prefix: str, sizes: dict[str, int], total: int) -> list[list[str]]:
    """Return the names of parameters of a module's parts, each part a group."""
    own = [prefix + name for name, _ in module.named_parameters(recurse=False) if prefix + name in sizes]
    groups = [own] if own else []
    for name, child in module.named_children():
        inside = f"{prefix}{name}."
        names = [each for each in sizes if each.startswith(inside)]
        large = sum(sizes[each] for each in names) > _MOST_OF_ALL * total
        is_list = isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential) and len(child) > 1
        if (is_list or large) and any(True for _ in child.children()):
            groups += _blocks(child, inside, sizes, total)
        elif names:
            groups.append(names)
    return groups
