"""A script on the Tinker API as the rules see it: its calls, what becomes of their answers, the loops around them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

# Calls that answer with something to wait for.
PROMISES = frozenset(
    {"forward_backward", "forward_backward_custom", "optim_step", "save_state", "save_weights_for_sampler",
     "load_state", "load_state_with_optimizer"}
)  # fmt: skip
MAKES_TRAINING = frozenset(
    {"create_lora_training_client", "create_training_client_from_state",
     "create_training_client_from_state_with_optimizer"}
)  # fmt: skip
MAKES_SAMPLING = frozenset({"create_sampling_client", "save_weights_and_get_sampling_client"})
_NOQA = re.compile(r"#\s*noqa:\s*([A-Za-z0-9_\-, ]+)")


class ScriptError(Exception):
    """A file that can't be linted; the text says why."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a method or function.

    Attributes:
        node: the call.
        name: name of what is called, without `_async`.
        is_async: whether that name ended in `_async`.
        receiver: what the method is called on, as text; "" for a function.
        function: the function that it stands in; None at the top of the file.
        loops: loops around it within that function, the outermost first; comprehensions are among them.
    """

    node: ast.Call
    name: str
    is_async: bool
    receiver: str
    function: FunctionNode | None
    loops: tuple[ast.AST, ...]

    @property
    def line(self) -> int:
        """Number of its line."""
        return self.node.lineno

    def argument(self, name: str, place: int | None = None) -> ast.expr | None:
        """Return an argument by its name or, where it is given by place, by that; None where it isn't given."""
        for keyword in self.node.keywords:
            if keyword.arg == name:
                return keyword.value
        if place is not None and place < len(self.node.args):
            positional = self.node.args[: place + 1]
            if not any(isinstance(one, ast.Starred) for one in positional):
                return positional[place]
        return None

    def takes_more(self) -> bool:
        """Return whether `**settings` or `*words` are passed on, which may hold any argument."""
        return any(one.arg is None for one in self.node.keywords) or any(
            isinstance(one, ast.Starred) for one in self.node.args
        )


class Script:
    """A parsed script.

    Args:
        text: its source.
        name: how it is called in what is said of it.

    Raises:
        ScriptError: it is no Python.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.lines = text.splitlines()
        try:
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise ScriptError(f"{name}{line}: no Python that can be read: {getattr(error, 'msg', error)}") from None
        except RecursionError:
            raise ScriptError(f"{name}: nested too deeply to be read") from None
        self._parents: dict[ast.AST, ast.AST] = {
            child: parent for parent in ast.walk(self.tree) for child in ast.iter_child_nodes(parent)
        }

    @cached_property
    def uses_tinker(self) -> bool:
        """Whether it imports the SDK or its cookbook."""
        for node in ast.walk(self.tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            if any(name.split(".")[0] in ("tinker", "tinker_cookbook") for name in names):
                return True
        return False

    @cached_property
    def calls(self) -> list[Call]:
        """All calls, in the order of the file."""
        found = [self._call(node) for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return sorted(found, key=lambda call: (call.line, call.node.col_offset))

    @cached_property
    def calls_by_node(self) -> dict[ast.AST, Call]:
        """All calls, by their nodes."""
        return {call.node: call for call in self.calls}

    def named(self, *names: str) -> list[Call]:
        """Return the calls of some names."""
        return [call for call in self.calls if call.name in names]

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what a node stands in, the nearest first."""
        while node in self._parents:
            node = self._parents[node]
            yield node

    def parent(self, node: ast.AST) -> ast.AST | None:
        """Return what a node stands in; None for the file."""
        return self._parents.get(node)

    def statement(self, node: ast.AST) -> ast.stmt | None:
        """Return the statement that a node is of."""
        while not isinstance(node, ast.stmt):
            above = self.parent(node)
            if above is None:
                return None
            node = above
        return node

    def is_waited_for(self, call: Call) -> bool:
        """Return whether the same expression waits for the answer: `.result()`, or awaiting what a promise gave."""
        node: ast.AST = call.node
        above = self.parent(node)
        if isinstance(above, ast.Await):  # the first await sends it, a second one or `.result_async()` waits
            if call.name in MAKES_TRAINING | MAKES_SAMPLING or not call.is_async:
                return True
            node, above = above, self.parent(above)
            if isinstance(above, ast.Await):
                return True
        return isinstance(above, ast.Attribute) and above.attr in ("result", "result_async")

    def is_dropped(self, call: Call) -> bool:
        """Return whether nothing is done with what the call gives: a statement of its own."""
        above = self.parent(call.node)
        if isinstance(above, ast.Await):
            above = self.parent(above)
        return isinstance(above, ast.Expr)

    def assigned_name(self, call: Call) -> str | None:
        """Return the variable that takes what a call gives, waited for or not; None where there is none."""
        statement = self.statement(call.node)
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            return ast.unparse(statement.targets[0])
        if isinstance(statement, ast.AnnAssign):
            return ast.unparse(statement.target)
        return None

    def silenced(self, line: int) -> frozenset[str]:
        """Return the rules that a line's `# noqa: NAME` turns off."""
        match = _NOQA.search(self.lines[line - 1]) if 0 < line <= len(self.lines) else None
        return frozenset(word.strip().lower() for word in match[1].split(",")) if match else frozenset()

    def _call(self, node: ast.Call) -> Call:
        target = node.func
        name = target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""
        receiver = ast.unparse(target.value) if isinstance(target, ast.Attribute) else ""
        loops: list[ast.AST] = []
        function = None
        child: ast.AST = node
        for above in self.around(node):
            if isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                function = above
                break
            # What a loop goes over is worked out once, before it.
            once = isinstance(above, ast.For | ast.AsyncFor) and child is above.iter
            if isinstance(above, (*_LOOPS, *_COMPREHENSIONS)) and not once:
                loops.append(above)
            child = above
        plain = name.removesuffix("_async")
        return Call(node, plain, plain != name, receiver, function, tuple(reversed(loops)))
