"""Rules on the training step: what is sent, when it is waited for, and what becomes of the answer."""

import ast
from collections.abc import Iterator
from difflib import get_close_matches

from workflow.lint.rule import DOCS, Rule
from workflow.lint.script import MAKES_SAMPLING, MAKES_TRAINING, PROMISES, Call, Script

Places = Iterator[tuple[int, str]]
_LOSSES = (
    "cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo", "dppo", "stable_reinforce", "custom",
)  # fmt: skip
_POLICY_LOSSES = frozenset(_LOSSES) - {"cross_entropy", "custom"}
_BACKWARD = ("forward_backward", "forward_backward_custom")
_CHECKS = ("isfinite", "isnan", "isinf", "isnormal", "nan_to_num")
_CLIENT = ("tinker", "client", "training", "tc", "trainer", "service", "model")


def of_a_client(call: Call) -> bool:
    """Return whether a call is likely one of the SDK: `load_state` and `save_state` are names of others, too."""
    words = call.receiver.lower().replace("self.", "").replace("_", ".").split(".")
    return call.name in (*_BACKWARD, *MAKES_TRAINING) or any(word in _CLIENT for word in words)


def training_loop(script: Script) -> Call | None:
    """Return the first update that is in a loop; None where there is none."""
    return next((call for call in script.named("optim_step") if call.loops), None)


def _wait_between(script: Script) -> Places:
    for step in script.named("optim_step"):
        before = [
            call for call in script.named(*_BACKWARD)
            if call.function is step.function and call.loops == step.loops and call.line < step.line
        ]  # fmt: skip
        if not before:
            continue
        last = before[-1]
        waited = script.is_waited_for(last)
        name = script.assigned_name(last)
        if not waited and name and name.isidentifier():
            waited = _read_between(script, name, last, step)
        if waited:
            yield last.line, "the answer of forward_backward is waited for before optim_step is sent"


def _read_between(script: Script, name: str, first: Call, then: Call) -> bool:
    for node in ast.walk(script.tree):
        line = getattr(node, "lineno", 0)
        if not first.line < line < then.line:
            continue
        if isinstance(node, ast.Attribute) and (ast.unparse(node.value), node.attr.removesuffix("_async")) == (
            name, "result",
        ):  # fmt: skip
            return True
        sent = not first.is_async or isinstance(script.parent(first.node), ast.Await)  # else the first await sends it
        if sent and isinstance(node, ast.Await) and ast.unparse(node.value) == name:
            return True
    return False


def _never_sent(script: Script) -> Places:
    for call in script.calls:
        known = call.name in PROMISES | MAKES_TRAINING | MAKES_SAMPLING and of_a_client(call)
        if known and call.is_async and isinstance(script.parent(call.node), ast.Expr):
            yield call.line, f"{call.name}_async() is not awaited: SDKs before 0.38 never send it"


def _answer_dropped(script: Script) -> Places:
    for call in script.calls:
        if call.name not in PROMISES or not of_a_client(call) or script.is_waited_for(call):
            continue
        unsent = call.is_async and isinstance(script.parent(call.node), ast.Expr)
        if script.is_dropped(call) and not unsent:
            yield call.line, f"nobody reads the answer of {call.name}: an error of it goes unseen"


def _no_update(script: Script) -> Places:
    owner = script.named(*MAKES_TRAINING)
    passes_on = any(
        isinstance(node, ast.Name) and isinstance(script.parent(node), ast.Call | ast.keyword)
        for call in owner if (name := script.assigned_name(call)) for node in ast.walk(script.tree)
        if isinstance(node, ast.Name) and node.id == name
    )  # fmt: skip
    backward = script.named(*_BACKWARD)
    if owner and backward and not script.named("optim_step", "train_step") and not passes_on:
        yield backward[0].line, "gradients are computed and optim_step is never called: nothing is learned"


def _loss_name(script: Script) -> Places:
    for call in script.named("forward_backward"):
        given = call.argument("loss_fn", 1)
        if isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value not in _LOSSES:
            near = get_close_matches(given.value, _LOSSES, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_LOSSES)}"
            yield call.line, f"there is no loss {given.value!r}{hint}"


def _not_shifted(script: Script) -> Places:
    for datum in script.named("Datum"):
        inputs, losses = datum.argument("model_input", 1), datum.argument("loss_fn_inputs", 0)
        if inputs is None or not isinstance(losses, ast.Dict):
            continue
        source = next(
            (call.args[0] if call.args else call.keywords[0].value for call in ast.walk(inputs)
             if isinstance(call, ast.Call) and (call.args or call.keywords)
             and isinstance(call.func, ast.Attribute) and call.func.attr == "from_ints"), None,
        )  # fmt: skip
        for key, value in zip(losses.keys, losses.values, strict=True):
            if source is None or not isinstance(key, ast.Constant) or key.value != "target_tokens":
                continue
            if ast.unparse(_unwrapped(value)) == ast.unparse(source):
                what = ast.unparse(source)
                yield datum.line, f"target_tokens and model_input are both {what}: each token is asked for itself"


def _unwrapped(value: ast.expr) -> ast.expr:
    """Return what is inside of TensorData(...), torch.tensor(...), np.array(...) and the like."""
    while isinstance(value, ast.Call):
        inner = value.args[0] if value.args else next((one.value for one in value.keywords if one.arg == "data"), None)
        if inner is None:
            break
        value = inner
    return value


def _inputs_of_loss(script: Script) -> Places:
    names = {
        given.value for call in script.named("forward_backward")
        if isinstance(given := call.argument("loss_fn", 1), ast.Constant) and isinstance(given.value, str)
    }  # fmt: skip
    for datum in script.named("Datum"):
        losses = datum.argument("loss_fn_inputs", 0)
        if not isinstance(losses, ast.Dict) or any(not isinstance(key, ast.Constant) for key in losses.keys):
            continue
        keys = {key.value for key in losses.keys if isinstance(key, ast.Constant)}
        if names and names <= _POLICY_LOSSES and (lacks := {"target_tokens", "logprobs", "advantages"} - keys):
            yield datum.line, f"{' and '.join(sorted(names))} needs {' and '.join(sorted(lacks, key=str))} of a datum"
        elif names == {"cross_entropy"} and "weights" not in keys:
            yield datum.line, "without weights the loss is taken over the prompt, too"


def _no_nan_check(script: Script) -> Places:
    loop = training_loop(script)
    if loop is None or not script.named(*MAKES_TRAINING):
        return
    checks = any(call.name in _CHECKS or "nan" in call.name.lower() or "finite" in call.name.lower()
                 for call in script.calls)  # fmt: skip
    # x != x is the oldest check of all.
    same = any(
        isinstance(node, ast.Compare) and len(node.comparators) == 1 and isinstance(node.ops[0], ast.NotEq)
        and ast.unparse(node.left) == ast.unparse(node.comparators[0]) for node in ast.walk(script.tree)
    )  # fmt: skip
    if not checks and not same:
        yield loop.line, "no loss is looked at for NaN: a run that has exploded goes on being paid for"


def _blocks_loop(script: Script) -> Places:
    for call in script.calls:
        if call.name == "result" and isinstance(call.function, ast.AsyncFunctionDef) and not call.node.args:
            inner = (
                script.calls_by_node.get(call.node.func.value) if isinstance(call.node.func, ast.Attribute) else None
            )
            if inner is not None and inner.name in PROMISES | {"sample"}:
                yield call.line, f".result() of {inner.name} inside an async function stops all others meanwhile"


_STEP = """fwd = client.forward_backward(batch, "cross_entropy")
opt = client.optim_step(adam)
loss, _ = fwd.result(), opt.result()"""

STEP_RULES = (
    Rule("wait-between", "warning",
         "The service works in cycles. A step whose halves come together takes one of them; one that waits between "
         "them takes two, and the training twice as long.",
         _STEP, f"{DOCS}/tinker/under-the-hood/", _wait_between),
    Rule("never-awaited", "warning",
         "Before SDK 0.38 this is a coroutine and does nothing until it is awaited; since then its error goes unseen.",
         "future = await client.optim_step_async(adam)\nawait future", f"{DOCS}/async", _never_sent),
    Rule("answer-dropped", "warning",
         "Errors come with the answer: a step that was refused is as if it had not been sent, and the script goes on.",
         _STEP, f"{DOCS}/async", _answer_dropped),
    Rule("no-update", "warning", "Gradients add up until optim_step takes them; without it the weights never change.",
         _STEP, f"{DOCS}/training-sampling", _no_update),
    Rule("loss-name", "error", "The service refuses a loss that it doesn't know, after the data was prepared and sent.",
         'client.forward_backward(batch, "cross_entropy")', f"{DOCS}/losses", _loss_name),
    Rule("not-shifted", "error",
         "The model sees position i and is asked for target i. Targets that aren't shifted teach it to repeat its "
         "input: the loss falls to nothing, and it has learned nothing.",
         "Datum(model_input=ModelInput.from_ints(tokens[:-1]),\n      loss_fn_inputs={\"target_tokens\": tokens[1:], "
         "\"weights\": weights[1:]})", f"{DOCS}/losses", _not_shifted),
    Rule("inputs-of-loss", "warning",
         "Each loss reads its own inputs: cross_entropy weights, policy losses the sampler's logprobs and advantages.",
         'loss_fn_inputs={"target_tokens": targets, "logprobs": sampled, "advantages": advantages}',
         f"{DOCS}/losses", _inputs_of_loss),
    Rule("no-nan-check", "note", "A loss that is no number stays so: every later step is paid for in vain.",
         'if not math.isfinite(loss):\n    raise SystemExit(f"step {step}: loss is {loss}; lower the learning rate")',
         f"{DOCS}/training-sampling", _no_nan_check),
    Rule("blocks-the-loop", "warning",
         "`.result()` waits with the whole event loop: rollouts that should run side by side run one after another.",
         "result = await (await client.forward_backward_async(batch, loss_fn))", f"{DOCS}/async", _blocks_loop),
)  # fmt: skip
