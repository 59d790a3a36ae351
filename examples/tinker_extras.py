"""What train_with_tinker.py needs at times: answers from the samples of the SDK, and a start by conversations."""

import json
import re
import time

from openai.types.chat import ChatCompletion
from tinker import types

CALL = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def answer(sampler, tokenizer, request):
    """Answer a chat as an endpoint would that tells `prompt_token_ids`, and `token_ids` of each choice.

    It is for services whose own endpoint tells no ids. No streams; tools where the model writes calls as
    <tool_call>{"name": ..., "arguments": {...}}</tool_call>.

    Args:
        sampler: the SDK's sampling client.
        tokenizer: tokenizer of its model, with a chat template.
        request: fields of the request.
    """
    prompt = _ids(tokenizer, [_plain(message) for message in request["messages"]], True, request.get("tools"))
    ends = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|im_end|>"])} - {None, tokenizer.unk_token_id}
    params = types.SamplingParams(
        max_tokens=request.get("max_tokens") or request.get("max_completion_tokens") or 512,
        temperature=request.get("temperature") or 1.0, seed=request.get("seed"), stop=sorted(ends),
    )  # fmt: skip
    samples = sampler.sample(types.ModelInput.from_ints(prompt), request.get("n", 1), params).result().sequences
    return ChatCompletion.model_validate(
        {"id": "sampled", "object": "chat.completion", "created": int(time.time()), "model": request["model"],
         "prompt_token_ids": prompt,
         "choices": [_choice(tokenizer, number, sample) for number, sample in enumerate(samples)]}
    )  # fmt: skip


def _ids(tokenizer, messages, ask, tools):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, tools=tools)
    return tokenizer.encode(text, add_special_tokens=False)


def _plain(message):
    """Return a message as templates want it: arguments of calls as mappings."""
    message = message if isinstance(message, dict) else message.model_dump(exclude_none=True)
    calls = [{**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
             for call in message.get("tool_calls") or ()]  # fmt: skip
    return {**message, "content": message.get("content") or "", **({"tool_calls": calls} if calls else {})}


def _choice(tokenizer, number, sample):
    said, calls = tokenizer.decode(sample.tokens, skip_special_tokens=True), []
    for text in CALL.findall(said):
        try:
            call = json.loads(text)
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        except (ValueError, KeyError, TypeError):
            continue  # no call
        calls.append({"id": f"call_{number}_{len(calls)}", "type": "function", "function": function})
    content = CALL.sub("", said) if calls else said
    logprobs = [{"token": "", "logprob": value, "top_logprobs": []} for value in sample.logprobs]
    return {"index": number, "finish_reason": sample.stop_reason, "token_ids": list(sample.tokens),
            "message": {"role": "assistant", "content": content or None, "tool_calls": calls or None},
            "logprobs": {"content": logprobs}}  # fmt: skip


def learn_conversations(training, tokenizer, path, epochs, rate, draw):
    """Make what the assistant says in conversations likelier, 32 of them a step.

    Args:
        training: the SDK's training client.
        tokenizer: tokenizer of its model, with a chat template.
        path: a .jsonl file with `messages`, and `tools` where there are any.
        epochs: how often each is learned.
        rate: learning rate, which falls to 0.
        draw: random.Random that gives the order.
    """
    rows = [_row(tokenizer, **json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [some for _ in range(epochs) for some in _batches(rows, draw)]
    for number, some in enumerate(steps):
        count = sum(sum(weights) for _, weights in some)
        data = [types.Datum(model_input=types.ModelInput.from_ints(ids[:-1]), loss_fn_inputs={
            "target_tokens": ids[1:], "weights": [weight / count for weight in weights[1:]],
        }) for ids, weights in some]  # fmt: skip
        passed = training.forward_backward(data, "cross_entropy")
        adam = types.AdamParams(learning_rate=rate * (1 - number / len(steps)), eps=1e-8)
        training.optim_step(adam).result()
        if number % 10 == 0:
            print(f"warm start, step {number} of {len(steps)}: {passed.result().metrics['loss:sum']:.3f}", flush=True)


def _batches(rows, draw, size=32):
    order = draw.sample(rows, len(rows))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _row(tokenizer, messages, tools=None):
    """Return ids of a conversation, and which of them the assistant said."""
    ids, weights, messages = [], [], [_plain(message) for message in messages]
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = _ids(tokenizer, messages[:number], True, tools)
            ids = _ids(tokenizer, messages[: number + 1], False, tools)
            weights += [0.0] * (len(prompt) - len(weights)) + [1.0] * (len(ids) - len(prompt))
    return ids, weights
