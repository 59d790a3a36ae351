"""What a client of the Tinker protocol relies on, checked through the official client of any version and nothing else.

`check_*` are the checks, each of them whole in itself; `python tinker_client_checks.py URL MODEL` does all of them with
the client that is installed, so that each version can be tried in an environment of its own. The service must serve a
model that learns a few words from thirty steps on them (`tinker_calls.quick_learner`).
"""

import inspect
import math
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import tinker
from tinker import types

PROMPT, ANSWER = list(b"colour of apple?"), list(b" red\n")
LONG = 300  # seconds that nothing takes
_STEPS = 30
_CLOSE = 1e-4  # between numbers that differ by rounding in float32


def result(found):
    """Return what a future ends with; old clients return some things at once."""
    return found.result(LONG) if hasattr(found, "result") else found


def prompt(tokens: Sequence[int] = PROMPT):
    return types.ModelInput.from_ints(list(tokens))


def datum(before: Sequence[int] = PROMPT, after: Sequence[int] = ANSWER, weight: float = 1.0):
    """Return a row that is trained on what comes after."""
    whole = [*before, *after]
    weights = [0.0] * (len(before) - 1) + [weight] * len(after)
    return types.Datum(model_input=prompt(whole[:-1]), loss_fn_inputs={"target_tokens": whole[1:], "weights": weights})


def sampled_datum(logprobs: Sequence[float], advantages: Sequence[float]):
    """Return a row of sampled tokens: their log-probabilities then, and how much better than expected they were."""
    whole, nothing = [*PROMPT, *ANSWER], [0.0] * (len(PROMPT) - 1)
    inputs = {"target_tokens": whole[1:], "logprobs": [*nothing, *logprobs], "advantages": [*nothing, *advantages]}
    return types.Datum(model_input=prompt(whole[:-1]), loss_fn_inputs=inputs)


def numbers(tensor) -> list[float]:
    return [float(each) for each in (tensor.tolist() if hasattr(tensor, "tolist") else tensor.data)]


def close(first: Sequence[float], second: Sequence[float], most: float = _CLOSE) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(abs(one - other) <= most * max(1.0, abs(one)) for one, other in pairs)


def adam(rate: float = 1e-2, **more: float):
    return types.AdamParams(learning_rate=rate, **more)


class Client:
    """One user's client.

    Args:
        url: address of the service.
        model: name of its model.
        key: key that is sent.
    """

    def __init__(self, url: str, model: str, key: str = "tml-x") -> None:
        self.url, self.model, self.key = url, model, key
        self.service = tinker.ServiceClient(base_url=url, api_key=key)

    def trainer(self, seed: int = 1, rank: int = 8, **more):
        return result(self.service.create_lora_training_client(base_model=self.model, rank=rank, seed=seed, **more))

    def sampler(self, path: str | None = None):
        if path is None:
            return result(self.service.create_sampling_client(base_model=self.model))
        return result(self.service.create_sampling_client(model_path=path))

    def rest(self):
        if hasattr(tinker, "RestClient"):
            return tinker.RestClient(base_url=self.url, api_key=self.key)
        return self.service.create_rest_client()

    def models(self):
        """Return the models that the service has."""
        rest = self.rest()
        asked = (rest if hasattr(rest, "get_server_capabilities") else self.service).get_server_capabilities()
        return result(asked).supported_models

    def close(self) -> None:
        """End, so that no thread of the client's outlives its service."""
        if hasattr(self.service, "close"):
            result(self.service.close("success"))


@contextmanager
def client(url: str, model: str) -> Iterator[Client]:
    made = Client(url, model)
    try:
        yield made
    finally:
        made.close()


def learn(trainer, steps: int = _STEPS, after: Sequence[int] = ANSWER, rate: float = 1e-2):
    """Train on one answer, as scripts do: the step is sent before the passes have been answered."""
    for _ in range(steps):
        trainer.forward_backward([datum(after=after)], "cross_entropy")
        last = trainer.optim_step(adam(rate))
    result(last)
    return trainer


def row_logprobs(trainer, rows=None) -> list[list[float]]:
    found = result(trainer.forward(rows or [datum()], "cross_entropy"))
    return [numbers(each["logprobs"]) for each in found.loss_fn_outputs]


def all_logprobs(trainer, rows) -> list[float]:
    return [each for row in row_logprobs(trainer, rows) for each in row]


def loss(trainer, rows=None) -> float:
    return result(trainer.forward(rows or [datum()], "cross_entropy")).metrics["loss:sum"]


def sample(sampler, tokens: Sequence[int] = PROMPT, samples: int = 1, more=None, **params):
    asked = sampler.sample(
        prompt=prompt(tokens), num_samples=samples, sampling_params=types.SamplingParams(**params), **(more or {})
    )
    return result(asked)


def raises(kind, told: str, work: Callable[[], object]) -> None:
    """Check that work fails with an error of a kind, and that its text says something."""
    begin = time.monotonic()
    try:
        work()
    except kind as error:
        assert told in str(error), f"{told!r} is not in {error}"
        assert time.monotonic() - begin < 20, "the client has tried it again and again"
        return
    raise AssertionError(f"nothing was raised; {told!r} was expected")


# ---------------------------------------------------------------------------------------------------------- fine-tuning


def check_what_there_is(own: Client) -> None:
    """The service's model, a new model of it, and its tokenizer."""
    assert [each.model_name for each in own.models()] == [own.model]
    trainer = own.trainer(rank=16)
    told = trainer.get_info()
    assert (told.model_id, told.lora_rank, told.is_lora) == (trainer.model_id, 16, True)
    assert told.model_data.model_name == own.model and told.model_data.arch == "llama"
    assert trainer.model_id.count(":train:") == 1 and "/" not in trainer.model_id
    assert trainer.get_tokenizer().encode("ab", add_special_tokens=False) == list(b"ab")


def check_fine_tuning(own: Client) -> None:
    """Passes, steps and their sums: forward changes nothing, gradients add up and are used once."""
    rows = [datum(), datum(after=list(b" blue")), datum(list(b"x"), list(b"yz"), weight=-0.5)]
    trainer = own.trainer()
    told = result(trainer.forward(rows, "cross_entropy"))
    found = [numbers(each["logprobs"]) for each in told.loss_fn_outputs]
    assert [len(each) for each in found] == [len(each.loss_fn_inputs["target_tokens"].data) for each in rows]
    by_hand = -sum(
        weight * logprob
        for row, logprobs in zip(rows, found, strict=True)
        for weight, logprob in zip(numbers(row.loss_fn_inputs["weights"]), logprobs, strict=True)
    )
    assert abs(told.metrics["loss:sum"] - by_hand) < 1e-3
    assert all(name.count(":") == 1 for name in told.metrics)
    first = row_logprobs(trainer, rows)
    assert first == found, "forward changes nothing"
    result(trainer.forward_backward(rows, "cross_entropy"))
    result(trainer.optim_step(adam(0.0)))
    assert row_logprobs(trainer, rows) == found, "a learning rate of 0 changes nothing"
    before = loss(trainer)
    learn(trainer)
    assert loss(trainer) < 0.5 * before

    def one_step(parts) -> list[float]:
        made = own.trainer(seed=3)
        for part in parts:
            made.forward_backward(part, "cross_entropy")
        result(made.optim_step(adam()))
        return all_logprobs(made, rows)

    assert close(one_step([rows]), one_step([rows[:1], rows[1:]])), "gradients add up"
    plain = {"beta1": 0.0, "beta2": 0.0, "eps": 1e-3}  # a step shows the gradient in hand alone
    one, other = own.trainer(seed=4), own.trainer(seed=4)
    one.forward_backward(rows[:1], "cross_entropy")
    one.optim_step(adam(0.0, **plain))
    for each in (one, other):
        each.forward_backward(rows[1:], "cross_entropy")
        each.optim_step(adam(1e-3, **plain))
    assert close(all_logprobs(one, rows), all_logprobs(other, rows)), "a step clears the gradients"
    result(one.optim_step(adam()))  # without a gradient


def check_many_rows(own: Client) -> None:
    """A batch that the client cuts into several requests, the first of which may come last."""
    trainer = own.trainer(rank=2)
    rows = [datum([65 + number % 26], [97 + number % 26]) for number in range(1100)]
    told = result(trainer.forward_backward(rows, "cross_entropy"))
    assert len(told.loss_fn_outputs) == 1100
    few = row_logprobs(trainer, rows[:26])
    assert close(
        [numbers(each["logprobs"])[0] for each in told.loss_fn_outputs], [few[number % 26][0] for number in range(1100)]
    )
    by_hand = -sum(few[number % 26][0] for number in range(1100))
    assert abs(told.metrics["loss:sum"] - by_hand) < 1e-2 * abs(by_hand)
    result(trainer.optim_step(adam()))


def check_losses_of_reinforcement(own: Client) -> None:
    """Each loss has the value of its formula, and the gradient too: it trains as weights of that gradient would."""
    base = row_logprobs(own.trainer())[0][-len(ANSWER) :]
    then = [base[0] - 0.1, base[1] + 0.5, base[2] - 2.0, base[3] + 0.05, base[4] - 0.3]  # ratios 1.1 to 7.4 and below 1
    gains = [1.0, 2.0, 0.5, -1.0, -1.5]
    ratios = [math.exp(now - old) for now, old in zip(base, then, strict=True)]
    terms = list(zip(base, then, gains, ratios, strict=True))

    def clipped(ratio: float, low: float, high: float) -> float:
        return min(max(ratio, low), high)

    def ppo(low: float, high: float) -> tuple[float, list[float]]:
        value = -sum(min(ratio * gain, clipped(ratio, low, high) * gain) for _, _, gain, ratio in terms)
        free = [ratio * gain <= clipped(ratio, low, high) * gain for _, _, gain, ratio in terms]
        return value, [ratio * gain if one else 0.0 for (_, _, gain, ratio), one in zip(terms, free, strict=True)]

    def cispo(low: float, high: float) -> tuple[float, list[float]]:
        weights = [clipped(ratio, low, high) * gain for _, _, gain, ratio in terms]
        return -sum(weight * now for weight, now in zip(weights, base, strict=True)), weights

    def dro(beta: float) -> tuple[float, list[float]]:
        value = -sum(now * gain - 0.5 * beta * (now - old) ** 2 for now, old, gain, _ in terms)
        # The tokens of the prompt, of gain 0 and old 0, pay for their distance as well.
        whole = row_logprobs(own.trainer())[0][: -len(ANSWER)]
        value += sum(0.5 * beta * each**2 for each in whole)
        return value, [gain - beta * (now - old) for now, old, gain, _ in terms]

    importance = -sum(ratio * gain for _, _, gain, ratio in terms), [ratio * gain for _, _, gain, ratio in terms]
    cases = [
        ("importance_sampling", None, importance),
        ("ppo", None, ppo(0.8, 1.2)),
        ("ppo", {"clip_low_threshold": 0.95, "clip_high_threshold": 8.0}, ppo(0.95, 8.0)),
        ("cispo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}, cispo(0.8, 1.2)),
        ("dro", {"beta": 0.3}, dro(0.3)),
    ]
    for name, config, (value, weights) in cases:
        trained = own.trainer()
        told = result(trained.forward_backward([sampled_datum(then, gains)], name, loss_fn_config=config))
        assert abs(told.metrics["loss:sum"] - value) < 1e-3 * max(1, abs(value)), (name, told.metrics, value)
        assert close(numbers(told.loss_fn_outputs[0]["logprobs"])[-len(ANSWER) :], base)
        if name == "dro":  # whose prompt has a gradient too
            continue
        plain = {"beta1": 0.0, "beta2": 0.0, "eps": 1.0}  # so that sizes of gradients count
        result(trained.optim_step(adam(0.1, **plain)))
        twin = own.trainer()
        row = datum()
        given = [*numbers(row.loss_fn_inputs["weights"])[: -len(ANSWER)], *weights]
        row.loss_fn_inputs["weights"] = types.TensorData(data=given, dtype="float32", shape=[len(given)])
        result(twin.forward_backward([row], "cross_entropy"))
        result(twin.optim_step(adam(0.1, **plain)))
        after, other = row_logprobs(trained)[0], row_logprobs(twin)[0]
        assert close(after, other) and not close(after[-len(ANSWER) :], base, 1e-6), name


def check_loss_of_the_users_own(own: Client) -> None:
    """The client works a loss of the user's out from log-probabilities, and sends its gradient as weights."""
    with suppress(ImportError):
        import torch

        def mine(data, logprobs):
            weights = [torch.tensor(numbers(each.loss_fn_inputs["weights"])) for each in data]
            return -sum(torch.dot(one, other) for one, other in zip(logprobs, weights, strict=True)), {"mine:sum": 1.0}

        one, other = own.trainer(seed=5), own.trainer(seed=5)
        told = result(one.forward_backward_custom([datum()], mine))
        assert told.metrics["mine:sum"] == 1.0
        result(one.optim_step(adam()))
        result(other.forward_backward([datum()], "cross_entropy"))
        result(other.optim_step(adam()))
        assert close(row_logprobs(one)[0], row_logprobs(other)[0])


# ------------------------------------------------------------------------------------------------------------- sampling


def check_sampling(own: Client) -> None:
    """What ends a sample, seeds, and log-probabilities that are the trainer's."""
    trainer = learn(own.trainer())
    sampler = result(trainer.save_weights_and_get_sampling_client())
    greedy = {"temperature": 0.0, "max_tokens": len(ANSWER)}
    told = sample(sampler, samples=3, **greedy)
    assert [list(each.tokens) for each in told.sequences] == [ANSWER] * 3
    assert {each.stop_reason for each in told.sequences} == {"length"}

    for stop, tokens in (
        ("d", ANSWER[:4]), ([" r"], ANSWER[:2]), (["xx", "ed"], ANSWER[:4]), ([ANSWER[1]], ANSWER[:2]),
        (["\n"], ANSWER), ([], ANSWER),
    ):  # fmt: skip
        (told,) = sample(sampler, stop=stop, **greedy).sequences
        assert list(told.tokens) == tokens, (stop, told.tokens)
        assert told.stop_reason == ("length" if stop == [] else "stop") and len(told.logprobs) == len(tokens)

    drawn = {"temperature": 1.0, "max_tokens": 12, "stop": [], "seed": 7}
    base = own.sampler()
    first, second = (sample(base, samples=4, **drawn).sequences for _ in range(2))
    assert [list(each.tokens) for each in first] == [list(each.tokens) for each in second]
    assert len({tuple(each.tokens) for each in first}) == 4, "samples of one request differ"
    other = sample(base, samples=4, **{**drawn, "seed": 8}).sequences
    assert not {tuple(each.tokens) for each in first} & {tuple(each.tokens) for each in other}
    free = {name: value for name, value in drawn.items() if name != "seed"}
    one, two = (tuple(sample(base, **free).sequences[0].tokens) for _ in range(2))
    assert one != two, "without a seed"
    for params in ({"temperature": 0.5}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}):
        (told,) = sample(sampler, seed=2**63 - 1, **{**free, "max_tokens": 6, **params}).sequences
        again = result(sampler.compute_logprobs(prompt([*PROMPT, *told.tokens])))
        assert again[0] is None and len(again) == len(PROMPT) + len(told.tokens)
        assert close(list(told.logprobs), again[len(PROMPT) :], 1e-3), "of the model as it is, however it was drawn"
    assert close(row_logprobs(trainer)[0], result(sampler.compute_logprobs(prompt([*PROMPT, *ANSWER])))[1:], 1e-3)


def check_prompt_logprobs(own: Client) -> None:
    """Log-probabilities of the prompt, and the likeliest tokens of each of its places."""
    sampler = own.sampler()
    length = len(PROMPT)
    told = sample(sampler, more={"include_prompt_logprobs": True, "topk_prompt_logprobs": 3}, max_tokens=2, stop=[])
    known, tops = told.prompt_logprobs, told.topk_prompt_logprobs
    assert len(known) == len(tops) == length and known[0] is None and not tops[0]
    for place in range(1, length):
        row = [(int(token), float(logprob)) for token, logprob in tops[place]]
        assert len(row) == 3 and row == sorted(row, key=lambda pair: -pair[1])
        assert known[place] <= row[0][1] + 1e-6
        for token, logprob in row:
            assert token != PROMPT[place] or abs(logprob - known[place]) < 1e-5
    assert close(known[1:], result(sampler.compute_logprobs(prompt()))[1:])
    assert sample(sampler, max_tokens=1).prompt_logprobs is None
    options = inspect.signature(sampler.sample).parameters
    if "topk_sample_logprobs" in options:
        (told,) = sample(sampler, more={"topk_sample_logprobs": 2}, max_tokens=3, temperature=0.0, stop=[]).sequences
        tops = told.topk_logprobs
        assert [int(row[0][0]) for row in tops] == list(told.tokens), "the likeliest was taken"
        assert close([float(row[0][1]) for row in tops], list(told.logprobs)) and {len(row) for row in tops} == {2}
    if "prompt_logprobs_last_n" in options:
        more = {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 4}
        last = sample(sampler, more=more, max_tokens=1).prompt_logprobs
        assert last[:-4] == [None] * (length - 4) and close(last[-4:], known[-4:])
    if "prompt_alt_tokens_k" in options:
        _check_other_tokens(sampler, known)


def _check_other_tokens(sampler, known) -> None:
    """Scores of other tokens than the prompt's in its places, as a table and as single cells; tokens drawn for them."""

    def asked(data, shape, **cells):
        targets = types.TensorData(data=data, dtype="int64", shape=shape, **cells)
        return sample(sampler, more={"target_prompt_logprobs": targets}, max_tokens=1).target_prompt_logprobs

    places = len(PROMPT) - 1
    wanted = [each for token in PROMPT[1:] for each in (token, -1, 65)]
    told = asked(wanted, [places, 3])
    flat = list(told.data)
    assert list(told.shape) == [places, 3]
    assert close(flat[0::3], known[1:]) and not any(flat[1::3]) and all(each < 0 for each in flat[2::3])
    rows = [0, *([2] * 3), *([3] * (places - 3))]  # two cells of the first place, one of the fourth
    told = asked([65, PROMPT[1], 65], [places, 300], sparse_crow_indices=rows, sparse_col_indices=[3, 299, 0])
    assert close(list(told.data), [flat[2], known[1], flat[3 * 3 + 2]])
    assert list(told.sparse_crow_indices) == rows and list(told.sparse_col_indices) == [3, 299, 0]
    greedy = sample(sampler, more={"prompt_alt_tokens_k": 2, "topk_prompt_logprobs": 1}, max_tokens=1, temperature=0.0)
    likeliest = [int(row[0][0]) for row in greedy.topk_prompt_logprobs[1:]]
    taken = [int(each) for each in greedy.prompt_alt_tokens.tokens.data]
    assert taken[0::2] == taken[1::2] == likeliest
    first, second = (sample(sampler, more={"prompt_alt_tokens_k": 8}, max_tokens=1, seed=3) for _ in range(2))
    drawn = [int(each) for each in first.prompt_alt_tokens.tokens.data]
    assert drawn == [int(each) for each in second.prompt_alt_tokens.tokens.data] and len(set(drawn)) > 20
    told = asked(drawn, [places, 8])
    assert close(list(told.data), list(first.prompt_alt_tokens.logprobs.data))


def check_ends(own: Client) -> None:
    """The model's own end is among the tokens; without a limit a sample goes on to the end of the context."""
    trainer = own.trainer()
    end = trainer.get_tokenizer().eos_token_id
    learn(trainer, 2 * _STEPS, [*ANSWER, end], rate=3e-3)
    sampler = result(trainer.save_weights_and_get_sampling_client())
    (told,) = sample(sampler, temperature=0.0, max_tokens=20).sequences
    assert (list(told.tokens), told.stop_reason) == ([*ANSWER, end], "stop")
    (told,) = sample(sampler, temperature=0.0, max_tokens=8, stop=[]).sequences
    assert (list(told.tokens)[:6], len(told.tokens), told.stop_reason) == ([*ANSWER, end], 8, "length")
    context = getattr(own.models()[0], "max_context_length", None) or 2048
    (told,) = sample(sampler, [65] * (context - 5), stop=[]).sequences
    assert len(told.tokens) == 5 and told.stop_reason == "length"


# ---------------------------------------------------------------------------------------------------------- checkpoints


def check_checkpoints(own: Client) -> None:
    """Saving and loading: the same bits, at their place in the order, with and without the optimizer."""
    trainer = learn(own.trainer(user_metadata={"who": "me"}), steps=5)
    before = row_logprobs(trainer)
    trainer.forward_backward([datum(after=list(b" blue"))], "cross_entropy")  # gradients are not saved
    saving = trainer.save_state("one")
    trainer.optim_step(adam())  # sent before the save is answered: not in it
    saved = result(saving).path
    assert saved == f"tinker://{trainer.model_id}/weights/one"
    assert row_logprobs(trainer) != before
    weights_only = result(own.service.create_training_client_from_state(saved))
    assert row_logprobs(weights_only) == before
    twin = learn(own.trainer(), steps=5)
    assert row_logprobs(twin) == before, "the same requests give the same bits"
    whole = result(own.service.create_training_client_from_state_with_optimizer(saved, user_metadata={"from": "one"}))
    for each in (whole, twin, weights_only):
        learn(each, steps=2)
    assert row_logprobs(whole) == row_logprobs(twin) != row_logprobs(weights_only)
    for load, equal in ((trainer.load_state_with_optimizer, True), (trainer.load_state, False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result(load(saved))
        assert row_logprobs(trainer) == before
        learn(trainer, steps=2)
        assert (row_logprobs(trainer) == row_logprobs(whole)) is equal

    few = learn(own.trainer(train_mlp=False, train_unembed=False), steps=2)
    path = result(few.save_state("few")).path
    again = result(own.service.create_training_client_from_state(path))
    assert row_logprobs(again) == row_logprobs(few), "layers that are not trained are as in the checkpoint"
    assert row_logprobs(learn(again, steps=1)) != row_logprobs(few)

    served = result(trainer.save_weights_for_sampler("one")).path
    assert served == f"tinker://{trainer.model_id}/sampler_weights/one"
    sampler, now = own.sampler(served), row_logprobs(trainer)[0]
    learn(trainer, steps=2)
    assert close(result(sampler.compute_logprobs(prompt([*PROMPT, *ANSWER])))[1:], now, 1e-3), "a sampler keeps its own"

    rest = own.rest()
    run = result(rest.get_training_run(trainer.model_id))
    assert (run.base_model, run.lora_rank) == (own.model, 8)
    assert getattr(run, "user_metadata", {"who": "me"}) == {"who": "me"}
    listed = result(rest.list_checkpoints(trainer.model_id)).checkpoints
    assert {each.tinker_path: each.checkpoint_type for each in listed} == {saved: "training", served: "sampler"}
    runs = result(rest.list_training_runs(limit=1))
    assert len(runs.training_runs) == 1 and runs.cursor.total_count >= 4
    told = result(rest.get_weights_info_by_tinker_path(saved))
    assert (told.base_model, told.lora_rank) == (own.model, 8)
    if hasattr(rest, "set_checkpoint_ttl_from_tinker_path"):
        result(rest.set_checkpoint_ttl_from_tinker_path(served, 3600))
        ends = {
            each.tinker_path: each.expires_at for each in result(rest.list_checkpoints(trainer.model_id)).checkpoints
        }
        assert ends[served] is not None and ends[saved] is None
    _check_files(rest, trainer)
    raises(tinker.BadRequestError, "publishes nothing", lambda: result(rest.publish_checkpoint_from_tinker_path(saved)))
    result(rest.delete_checkpoint(trainer.model_id, "sampler_weights/one"))
    left = result(rest.list_checkpoints(trainer.model_id)).checkpoints
    assert [each.tinker_path for each in left] == [saved]
    raises(tinker.NotFoundError, "there is no checkpoint", lambda: own.sampler(served))


def _check_files(rest, trainer) -> None:
    """The files of a checkpoint are PEFT's, by whichever way the client has."""
    import io
    import tarfile
    from urllib.request import urlopen

    model = trainer.model_id
    if hasattr(rest, "get_external_weights_urls"):
        path = result(trainer.save_weights_external("one")).path
        assert path == f"tinker://{model}/external_weights/one"
        urls = result(rest.get_external_weights_urls(path)).urls
        _check_peft({name: urlopen(url).read() for name, url in urls.items()})
        result(rest.delete_checkpoint(model, "external_weights/one"))
    if hasattr(rest, "get_checkpoint_archive_url"):
        packed = urlopen(result(rest.get_checkpoint_archive_url(model, "sampler_weights/one")).url).read()
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            _check_peft({name: archive.extractfile(name).read() for name in archive.getnames()})


def _check_peft(files: dict[str, bytes]) -> None:
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert b'"r": 8' in files["adapter_config.json"] and len(files["adapter_model.safetensors"]) > 1000


# ------------------------------------------------------------------------------------------------- futures and mistakes


def check_futures(own: Client) -> None:
    """All is sent at once and asked for in any order, more than once."""
    trainer = own.trainer(rank=2)
    passes, steps = [], []
    for _ in range(20):
        passes.append(trainer.forward_backward([datum()], "cross_entropy"))
        steps.append(trainer.optim_step(adam()))
    last = trainer.forward([datum()], "cross_entropy")
    losses = [each.result(LONG).metrics["loss:sum"] for each in reversed(passes)][::-1]
    assert losses == [each.result(LONG).metrics["loss:sum"] for each in passes]
    assert len(set(losses)) == 20 and min(losses) < 0.9 * losses[0]
    assert result(last).metrics["loss:sum"] == loss(trainer) not in losses
    sampler = own.sampler()
    params = [types.SamplingParams(max_tokens=3, seed=number, stop=[]) for number in range(40)]
    asked = [sampler.sample(prompt=prompt(), num_samples=1, sampling_params=each) for each in params]
    found = [tuple(each.result(LONG).sequences[0].tokens) for each in reversed(asked)][::-1]
    alone = sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params[17]).result(LONG)
    assert tuple(alone.sequences[0].tokens) == found[17] and len(set(found)) > 20


def check_mistakes(own: Client) -> None:
    """A request that can't be done says why; gradients, weights and what comes after are as if it had not been."""
    failed = tinker.RequestFailedError
    trainer, twin = own.trainer(), own.trainer()
    for each in (trainer, twin):
        each.forward_backward([datum()], "cross_entropy")
    short = datum()
    short.loss_fn_inputs["weights"] = types.TensorData(data=[1.0, 2.0], dtype="float32", shape=[2])
    missing = types.Datum(model_input=prompt([1, 2]), loss_fn_inputs={"target_tokens": [2, 3]})
    huge = sampled_datum([-200.0] * len(ANSWER), [1.0] * len(ANSWER))
    for rows, name, told in (
        ([datum([70_000, 1])], "cross_entropy", "token 70000"),
        ([datum(), datum(after=[5000])], "cross_entropy", "row 1 has the target 5000"),
        ([datum([65] * 3000)], "cross_entropy", "the model's context is"),
        ([short], "cross_entropy", "weights has the shape (2,)"),
        ([missing], "cross_entropy", "has no weights"),
        ([datum()], "ppo", "has no logprobs"),
        ([huge], "importance_sampling", "not finite"),
    ):
        raises(failed, told, lambda rows=rows, name=name: result(trainer.forward_backward(rows, name)))
    if hasattr(tinker, "RestClient"):  # older clients can't write it into their JSON
        told = "weights has a number that is not finite"
        endless = [datum(weight=math.inf)]
        raises(failed, told, lambda: result(trainer.forward_backward(endless, "cross_entropy")))
    asked = trainer.forward_backward([sampled_datum([-1.0] * 5, [1.0] * 5)], "ppo", loss_fn_config={"clip": 0.2})
    raises(failed, "clip", lambda: result(asked))
    for params in ({"beta1": 1.0}, {"learning_rate": -1.0}, {"learning_rate": 1e300}):
        raises(failed, "", lambda params=params: result(trainer.optim_step(types.AdamParams(**params))))
    raises(failed, "", lambda: result(trainer.save_state("../../etc/x")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raises(failed, "no checkpoint", lambda: result(trainer.load_state(f"tinker://{trainer.model_id}/weights/none")))
    for each in (trainer, twin):
        result(each.optim_step(adam()))
    assert row_logprobs(trainer) == row_logprobs(twin), "the gradient of before was kept, and nothing added to it"

    sampler = own.sampler()
    for params, told in (
        ({"max_tokens": 3, "temperature": -1.0}, "sampling_params.temperature is -1.0"),
        ({"max_tokens": 3, "top_p": 2.0}, "sampling_params.top_p is 2.0"),
        ({"max_tokens": 0}, "sampling_params.max_tokens is 0"),
        ({"max_tokens": 3, "top_k": 0}, "sampling_params.top_k is 0"),
        ({"max_tokens": 3, "stop": [10**6]}, "1000000"),
    ):
        raises(failed, told, lambda params=params: sample(sampler, **params))
    raises(failed, "70000", lambda: sample(sampler, [1, 70_000], max_tokens=1))
    raises(failed, "the model's context is", lambda: sample(sampler, [65] * 3000, max_tokens=1))
    assert len(sample(sampler, max_tokens=2, stop=[]).sequences[0].tokens) == 2
    raises(tinker.BadRequestError, "this service has", lambda: result(
        own.service.create_lora_training_client(base_model="no/such")))  # fmt: skip
    raises((tinker.BadRequestError, failed), "rank", lambda: own.trainer(rank=4000))
    raises(tinker.NotFoundError, "there is no checkpoint", lambda: own.sampler("tinker://x/sampler_weights/y"))
    raises(tinker.NotFoundError, "there is no model", lambda: result(own.rest().get_training_run("x")))


def check_several_clients(own: Client) -> None:
    """Clients at once, each in a thread: each learns its own answer, as it would alone."""
    found, wrong = {}, []

    def work(number: int) -> None:
        try:
            with client(own.url, own.model) as mine:
                trainer = learn(mine.trainer(seed=number), 15, [65 + number] * 4)
                sampler = result(trainer.save_weights_and_get_sampling_client())
                told = sample(sampler, temperature=0.0, max_tokens=4)
                found[number] = bytes(told.sequences[0].tokens)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert found == {number: bytes([65 + number] * 4) for number in range(3)}


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def main() -> int:
    """Do all checks.

    Returns:
        The exit code: 0 where all hold.
    """
    url, model, *chosen = sys.argv[1:]
    failed = 0
    with client(url, model) as own:
        for check in CHECKS:
            if chosen and check.__name__ not in chosen:
                continue
            begin = time.monotonic()
            try:
                check(own)
                told = "holds"
            except Exception:
                traceback.print_exc()
                told, failed = "FAILS", failed + 1
            print(f"tinker {tinker.__version__} {check.__name__} {told} ({time.monotonic() - begin:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
