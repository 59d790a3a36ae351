"""Rules on the run: what is saved, how it goes on after a kill, what is sampled with, and which settings it has."""

import ast
import math
from collections.abc import Iterator
from difflib import get_close_matches

from workflow.lint.rule import DOCS, Rule
from workflow.lint.script import MAKES_SAMPLING, MAKES_TRAINING, Call, Script
from workflow.lint.step_rules import of_a_client, training_loop

Places = Iterator[tuple[int, str]]
_RATES = (1e-5, 5e-3)  # of LoRA: ten times those of whole models, which go from 1e-6 to 5e-4
_RANKS = (1, 256)
_KEYS = ("tml-", "sk-", "hf_")
_SAVING = ("save", "checkpoint", "export", "publish")
_GREEDY = 1e-3


def _says(script: Script, *parts: str) -> bool:
    """Return whether something is called whose name holds a part."""
    return any(part in call.name.lower() for call in script.calls for part in parts)


def _saves(script: Script) -> list[Call]:
    """Return what keeps weights; snapshots to sample with are taken back by the service."""
    return [
        call for call in script.calls
        if any(part in call.name.lower() for part in _SAVING) and call.name not in MAKES_SAMPLING
    ]  # fmt: skip


def _no_save(script: Script) -> Places:
    loop = training_loop(script)
    if loop is not None and script.named(*MAKES_TRAINING) and not _saves(script):
        yield loop.line, "nothing that is trained here is ever saved"


def _saved_at_the_end(script: Script) -> Places:
    loop = training_loop(script)
    saves = _saves(script)
    if loop is None or not saves or not script.named(*MAKES_TRAINING):
        return
    # A function that saves may be called from the loop.
    inside = [call for call in saves if call.loops or call.function is not loop.function]
    if not [call for call in inside if call.name != "save_weights_for_sampler"]:  # which has no optimizer's state
        yield loop.line, "nothing is saved to go on from before the loop is over"


def _no_resume(script: Script) -> Places:
    made = script.named("create_lora_training_client")
    saves = script.named("save_state", "save_checkpoint")
    loads = [call for call in script.calls if _loads(call.name)]
    if made and training_loop(script) and saves and not loads:
        yield made[0].line, "what is saved is never loaded: a killed run begins at step 0"


def _loads(name: str) -> bool:
    makes = name in MAKES_TRAINING and "from_state" in name
    return makes or name == "load" or name.startswith("load_state") or any(
        part in name.lower() for part in ("resume", "last_checkpoint", "load_checkpoint", "load_weights")
    )  # fmt: skip


def _without_optimizer(script: Script) -> Places:
    if training_loop(script) is None or not script.named("save_state", "save_checkpoint"):
        return
    with_it = script.named("load_state_with_optimizer", "create_training_client_from_state_with_optimizer")
    for call in script.named("load_state", "create_training_client_from_state"):
        if not with_it and of_a_client(call):
            yield call.line, f"{call.name} brings the weights alone: Adam's moments begin at 0"


def _one_name(script: Script) -> Places:
    for call in script.named("save_state", "save_weights_for_sampler"):
        name = call.argument("name", 0)
        if call.loops and isinstance(name, ast.Constant) and isinstance(name.value, str) and of_a_client(call):
            yield call.line, f"every turn of the loop saves as {name.value!r}"


def _client_in_loop(script: Script) -> Places:
    for call in script.named("ServiceClient", *MAKES_TRAINING):
        if any(isinstance(loop, ast.For | ast.While) for loop in call.loops):
            what = "a session" if call.name == "ServiceClient" else "a model"
            yield call.line, f"{call.name} in a loop begins {what} each time"


def _stale_sampler(script: Script) -> Places:
    for update in script.named("optim_step"):
        for call in script.named("sample"):
            if (
                not _is_sampling(call)
                or call.function is not update.function
                or not set(call.loops) & set(update.loops)
            ):
                continue
            makers = [
                one for one in script.calls
                if one.name in MAKES_SAMPLING and one.function is call.function
                and script.assigned_name(one) == call.receiver
            ]  # fmt: skip
            if makers and not any(set(one.loops) & set(update.loops) for one in makers):
                yield call.line, f"{call.receiver} was made before the loop: it samples from the weights of that time"


def _one_by_one(script: Script) -> Places:
    for call in script.named("sample", "compute_logprobs"):
        loops = [loop for loop in call.loops if not isinstance(loop, ast.GeneratorExp)]
        if not loops or not (_is_sampling(call) or call.name == "compute_logprobs"):
            continue
        inner = loops[-1]
        # A loop that trains, or that asks again until an answer is right, has to wait.
        trains = any(set(step.loops) >= {inner} for step in script.named("optim_step", "forward_backward"))
        waits = not trains and not isinstance(inner, ast.While) and script.is_waited_for(call)
        if waits and not _feeds_itself(script, call, inner):
            yield call.line, "each sample is waited for before the next one is asked for"


def _feeds_itself(script: Script, call: Call, loop: ast.AST) -> bool:
    """Return whether a turn of the loop needs the turn before: what is sampled with is assigned in the loop itself."""
    asked = {node.id for node in ast.walk(call.node) if isinstance(node, ast.Name)}
    over = {node.id for node in ast.walk(getattr(loop, "target", loop)) if isinstance(node, ast.Name)} - {""}
    grown = {
        node.func.value.id for node in ast.walk(loop)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("append", "extend") and isinstance(node.func.value, ast.Name)
    }  # fmt: skip
    stored = {node.id for node in ast.walk(loop) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    read_first = {name for name in asked & stored - over if _assigned_before(script, name, loop)}
    return bool(asked & grown or read_first)


def _assigned_before(script: Script, name: str, loop: ast.AST) -> bool:
    line = getattr(loop, "lineno", 0)
    return any(isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store) and node.lineno < line
               for node in ast.walk(script.tree))  # fmt: skip


def _is_sampling(call: Call) -> bool:
    return call.name == "sample" and any(
        call.argument(name) is not None for name in ("sampling_params", "num_samples", "prompt")
    )


def _number(value: ast.expr | None) -> float | None:
    """Return a number that is written out; None for all else."""
    try:
        found = ast.literal_eval(value) if value is not None else None
    except (ValueError, TypeError, SyntaxError):
        return None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _setting(script: Script, call: Call, name: str, place: int | None = None) -> tuple[int, float] | None:
    """Return the line and number of an argument that is a number, or a name that is one number all through the file."""
    given = call.argument(name, place)
    number = _number(given)
    if number is not None:
        return call.line, number
    if isinstance(given, ast.Name):
        values = {
            (node.lineno, _number(node.value)) for node in ast.walk(script.tree)
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == given.id for target in node.targets)
        }  # fmt: skip
        if len(values) == 1:
            line, number = values.pop()
            return None if number is None else (line, number)
    return None


def _rate(script: Script) -> Places:
    for call in script.named("AdamParams"):
        found = _setting(script, call, "learning_rate", 0)
        if found and (found[1] <= 0 or not _RATES[0] <= found[1] <= _RATES[1] or math.isnan(found[1])):
            low, high = _RATES
            yield (
                found[0],
                f"a learning rate of {found[1]:g}; LoRA is trained with {low:g} to {high:g}, mostly 1e-4 to 5e-4",
            )


def _rank(script: Script) -> Places:
    for call in script.named("create_lora_training_client"):
        found = _setting(script, call, "rank", 1)
        if found and not _RANKS[0] <= found[1] <= _RANKS[1]:
            yield (
                found[0],
                f"a rank of {found[1]:g}; 8 to 128 are usual, and 32 is what services take where none is named",
            )


def _unbounded(script: Script) -> Places:
    for call in script.named("SamplingParams"):
        given = call.argument("max_tokens", 0)
        missing = given is None or (isinstance(given, ast.Constant) and given.value is None)
        if missing and not call.takes_more():
            yield call.line, "max_tokens is not set: an answer that does not end fills the context"


def _greedy_groups(script: Script) -> Places:
    policy = any(
        isinstance(node, ast.Constant) and node.value in ("importance_sampling", "ppo", "cispo") for node in
        ast.walk(script.tree)
    )  # fmt: skip
    for call in script.named("sample"):
        several = _setting(script, call, "num_samples")
        params = call.argument("sampling_params")
        if isinstance(params, ast.Name):
            params = next((node.value for node in ast.walk(script.tree) if isinstance(node, ast.Assign)
                           and any(ast.unparse(one) == params.id for one in node.targets)), params)  # fmt: skip
        inner = script.calls_by_node.get(params) if params is not None else None
        heat = _setting(script, inner, "temperature") if inner is not None else None
        if heat and heat[1] < _GREEDY and several and several[1] > 1:
            cost = "; their advantages are all 0" if policy else ""
            yield (
                call.line,
                f"{several[1]:g} samples at temperature {heat[1]:g} are {several[1]:g} times the same{cost}",
            )


def _key_in_code(script: Script) -> Places:
    for node in ast.walk(script.tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = node.value
        if text.startswith(_KEYS) and len(text) > 20 and text.replace("-", "").replace("_", "").isalnum():
            yield node.lineno, f"a key is written out ({text[:4]}...)"


def _unpinned_data(script: Script) -> Places:
    for call in script.named("load_dataset"):
        name = call.argument("path", 0)
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str) or "/" not in name.value:
            continue
        files = call.argument("data_files") is not None
        if call.argument("revision") is None and not files and not call.takes_more():
            yield call.line, f"{name.value} is taken as it is on the day: its author may change it between two runs"


def _no_seed(script: Script) -> Places:
    if training_loop(script) is None:
        return
    seeded = _says(script, "seed", "default_rng", "random", "generator")
    named = any(one.arg and "seed" in one.arg for call in script.calls for one in call.node.keywords)
    for call in script.calls:
        shuffles = call.name == "shuffle" or (
            call.receiver == "random" and call.name in ("sample", "choice", "choices")
        )
        if shuffles and not named and not (seeded and script.named("seed", "default_rng", "Random", "manual_seed")):
            yield call.line, f"{ast.unparse(call.node.func)} has no seed: no second run sees the data in this order"
            return


def _swallowed(script: Script) -> Places:
    for node in ast.walk(script.tree):
        if not isinstance(node, ast.Try):
            continue
        inside = [
            script.calls_by_node[one] for part in node.body for one in ast.walk(part) if isinstance(one, ast.Call)
        ]
        pays = [call for call in inside if call.name in ("forward_backward", "optim_step") or _is_sampling(call)]
        for handler in node.handlers:
            wide = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
            silent = all(isinstance(one, ast.Pass | ast.Continue) for one in handler.body)
            if pays and wide and silent:
                yield handler.lineno, f"every error of {pays[0].name} is passed over in silence"


def _misspelt(script: Script) -> Places:
    others = {"lr": "learning_rate", "betas": "beta1 and beta2", "epsilon": "eps", "clip": "grad_clip_norm",
              "max_grad_norm": "grad_clip_norm", "wd": "weight_decay"}  # fmt: skip
    known = ("learning_rate", "beta1", "beta2", "eps", "weight_decay", "grad_clip_norm")
    for call in script.named("AdamParams"):
        for one in call.node.keywords:
            if one.arg and one.arg not in known:
                near = [others[one.arg]] if one.arg in others else get_close_matches(one.arg, known, n=1, cutoff=0.5)
                yield call.line, f"AdamParams takes no {one.arg}{f'; did you mean {near[0]}?' if near else ''}"


_SAVE = """if step % 200 == 0:
    path = client.save_state(f"{step:06d}").result().path"""
_GO_ON = """client = (service.create_training_client_from_state_with_optimizer(path) if path
          else service.create_lora_training_client(base_model=model, rank=32)).result()"""

RUN_RULES = (
    Rule("no-save", "warning", "The weights are the service's: what is not saved is gone with the session.", _SAVE,
         f"{DOCS}/save-load", _no_save),
    Rule("saved-at-the-end", "warning", "A connection that is lost at step 990 of 1,000 costs all of them.", _SAVE,
         f"{DOCS}/save-load", _saved_at_the_end),
    Rule("no-resume", "note",
         "A checkpoint that no line loads is of use only to somebody who writes that line in a hurry.",
         _GO_ON, f"{DOCS}/save-load", _no_resume),
    Rule("resumed-without-optimizer", "warning",
         "Adam begins anew with moments of 0: the first steps are as large as the rate allows, and the loss jumps.",
         _GO_ON, f"{DOCS}/save-load", _without_optimizer),
    Rule("one-name", "warning",
         "A checkpoint of the same name takes the place of the one before, or is refused.", _SAVE,
         f"{DOCS}/save-load", _one_name),
    Rule("client-in-loop", "warning", "Clients are to be made once; a new model is one without what was learned.",
         "service = tinker.ServiceClient()  # before the loop", f"{DOCS}/training-sampling", _client_in_loop),
    Rule("stale-sampler", "warning",
         "A sampling client keeps the weights that it was made with: rollouts are of an older policy at every step.",
         "for step in range(steps):\n    sampler = client.save_weights_and_get_sampling_client().result()",
         f"{DOCS}/training-sampling", _stale_sampler),
    Rule("one-by-one", "warning", "The service samples many at a time for little more than the time of one.",
         "futures = [sampler.sample(prompt=one, num_samples=1, sampling_params=params) for one in prompts]\n"
         "answers = [future.result() for future in futures]", f"{DOCS}/async", _one_by_one),
    Rule("learning-rate", "warning",
         "Too low learns nothing, too high ends in NaN; LoRA wants about ten times the rate of whole models.",
         "AdamParams(learning_rate=get_lr(model_name))  # tinker_cookbook.hyperparam_utils",
         f"{DOCS}/lora-primer", _rate),
    Rule("rank", "warning", "Each model has a highest rank, above which the run ends before its first step.",
         "create_lora_training_client(base_model=model, rank=32)", f"{DOCS}/lora-primer", _rank),
    Rule("unbounded-answer", "warning", "Tokens that are sampled are paid for, those of an endless answer too.",
         "SamplingParams(max_tokens=256, stop=renderer.get_stop_sequences())", f"{DOCS}/training-sampling", _unbounded),
    Rule("greedy-groups", "warning", "Samples that are all the same tell no better answer from a worse one.",
         "SamplingParams(max_tokens=256, temperature=1.0)", f"{DOCS}/rl/rl-hyperparams", _greedy_groups),
    Rule("key-in-code", "error", "A key in a script is in its history, in every copy and in every log that quotes it.",
         "service = tinker.ServiceClient()  # reads TINKER_API_KEY", f"{DOCS}/install", _key_in_code),
    Rule("unpinned-data", "note", "Two runs of one script are then two experiments.",
         'load_dataset("owner/name", revision="2f1a0c9")',
         "https://huggingface.co/docs/datasets/loading", _unpinned_data),
    Rule("no-seed", "note", "Without it no run can be done again, and none told from the luck of its order.",
         "dataset.shuffle(seed=0)", f"{DOCS}/supervised-learning/sl-hyperparams", _no_seed),
    Rule("swallowed-error", "warning",
         "A run that fails at every step looks like one that learns nothing, and costs as much.",
         "except tinker.APIConnectionError as error:\n    logger.warning(\"step %d: %s\", step, error)",
         f"{DOCS}/api-reference/exceptions", _swallowed),
    Rule("setting-name", "error", "The SDK refuses it, at the first step and not before.",
         "AdamParams(learning_rate=1e-4, beta1=0.9, beta2=0.95, eps=1e-8)", f"{DOCS}/api-reference/types", _misspelt),
)  # fmt: skip
