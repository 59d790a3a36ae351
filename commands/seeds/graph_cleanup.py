"""Small changes to a recorded program: what computes nothing is left out, and views may be copies."""

import torch

aten = torch.ops.aten
_VIEWS = (
    aten.expand.default, aten.view.default, aten._unsafe_view.default, aten.permute.default, aten.detach.default,
    aten.alias.default,
)  # fmt: skip


def clean_up(program: torch.fx.GraphModule) -> None:
    """Remove views of what has that shape already, products with 1 and transpositions that undo each other.

    A step of small tensors is as slow as it has operations.

    Args:
        program: graph recorded by `make_fx` without autograd, with the tensors that it meets in `meta["val"]`; is
            changed.
    """
    for node in list(program.graph.nodes):
        same = _same(node)
        if same is not None:
            node.replace_all_uses_with(same)
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.recompile()


def free_layouts(program: torch.fx.GraphModule) -> None:
    """Let views copy where they must: operators that vmap does one by one lay their results out in another way.

    Args:
        program: graph recorded by `make_fx` without autograd; is changed.
    """
    for node in program.graph.nodes:
        if node.target is aten.view.default and not _written(node) and not _written(node.args[0]):
            node.target = aten.reshape.default
    program.recompile()


def _same(node: torch.fx.Node) -> torch.fx.Node | None:
    """Return the earlier node that has a node's values at a node's strides."""
    source = node.args[0] if node.args else None
    if not isinstance(source, torch.fx.Node):
        return None
    if node.target in _VIEWS:
        return source if _alike(node, source) else None
    if node.target is aten.mul.Scalar and node.args[1] == 1 and not _written(node):
        return source if _alike(node, source) else None
    if node.target is aten.transpose.int and source.target is aten.transpose.int:
        before = source.args[0]
        return before if isinstance(before, torch.fx.Node) and set(node.args[1:]) == set(source.args[1:]) else None
    return None


def _alike(one: torch.fx.Node, other: torch.fx.Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return False
    return (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


def _written(node: torch.fx.Node) -> bool:
    """Say whether somebody writes to a node's tensor, which is then not another's."""
    return any(getattr(getattr(user.target, "_schema", None), "is_mutable", False) for user in node.users)
