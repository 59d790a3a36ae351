"""The graph: which node follows which.

check_judge -> ask_judge -> baseline -> orchestrate -> (train | change | generate | finish)
train:  ask_training -> train_first -> ask_half_way -> train_rest -> evaluate -> ask_evaluation -> debug -> orchestrate
change: ask_change -> apply_change -> ask_training -> ...
generate: retrieve -> generate -> ask_change -> ...
finish: export -> the end
"""

from collections.abc import Callable
from functools import partial

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agents.context import TuneContext
from agents.nodes import (
    asking,
    changes,
    debugger,
    evaluator,
    finish,
    generator,
    judge,
    orchestrator,
    retrieval,
    trainer,
)
from agents.state import TuneState

Node = Callable[[TuneContext, TuneState], TuneState]
NODES: dict[str, Node] = {
    "check_judge": judge.check_judge,
    "ask_judge": asking.ask_judge,
    "baseline": evaluator.measure_baseline,
    "orchestrate": orchestrator.choose_next,
    "ask_training": asking.ask_training,
    "train_first": trainer.train_first,
    "ask_half_way": asking.ask_half_way,
    "train_rest": trainer.train_rest,
    "evaluate": evaluator.measure_trained,
    "ask_evaluation": asking.ask_evaluation,
    "debug": debugger.find_faults,
    "ask_change": asking.ask_change,
    "apply_change": changes.apply_change,
    "retrieve": retrieval.read_documents,
    "generate": generator.generate_rows,
    "export": finish.export_best,
}
# What always follows, and what follows by the state's `next`.
_ALWAYS = (
    (START, "check_judge"), ("check_judge", "ask_judge"), ("baseline", "orchestrate"),
    ("train_first", "ask_half_way"), ("ask_half_way", "train_rest"), ("train_rest", "evaluate"),
    ("evaluate", "ask_evaluation"), ("ask_evaluation", "debug"), ("debug", "orchestrate"),
    ("apply_change", "ask_training"), ("retrieve", "generate"), ("export", END),
)  # fmt: skip
_BY_NEXT = {
    "ask_judge": {"measure": "baseline", "finish": "export"},
    "orchestrate": {"train": "ask_training", "change": "ask_change", "generate": "retrieve", "finish": "export"},
    "generate": {"change": "ask_change", "orchestrate": "orchestrate"},
    "ask_training": {"train": "train_first", "finish": "export"},
    "ask_change": {"accept": "apply_change", "refuse": "orchestrate", "finish": "export"},
}
EDGES = (*_ALWAYS, *((name, other) for name, ways in _BY_NEXT.items() for other in ways.values()))
"""All arrows, for a picture."""


def build_graph(context: TuneContext, checkpoints: "BaseCheckpointSaver[str]") -> "CompiledStateGraph[TuneState]":
    """Build the graph.

    Args:
        context: what nodes share.
        checkpoints: where the state is kept.
    """
    graph = StateGraph(TuneState)
    for name, node in NODES.items():
        graph.add_node(name, partial(node, context))
    for first, second in _ALWAYS:
        graph.add_edge(first, second)
    for name, ways in _BY_NEXT.items():
        graph.add_conditional_edges(name, _next, dict(ways))
    return graph.compile(checkpointer=checkpoints)


def before(node: str) -> str:
    """Return a node that leads to another: where several do, one that always does."""
    return next(first for first, second in EDGES if second == node)


def _next(state: TuneState) -> str:
    return state["next"]
