"""What is trained on of a conversation, over templates as models have them; a sampler gets what training has."""

import random
from datetime import datetime

import chat_samples as samples
import pytest

pytest.importorskip("transformers")

from data.chat_messages import Completion, Conversation, Document, RowError
from data.chat_renderer import EMPTY_ANSWER, Renderer, RenderNotes
from data.chat_template import TemplateError, parse_options
from data.data_error import DataError


def chat(*turns) -> Conversation:
    """A conversation of (role, content)."""
    long = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return Conversation.of([{"role": long[role], "content": content} for role, content in turns])


def renderer(template=samples.CHATML, **options) -> Renderer:
    settings = {name: options.pop(name) for name in ("adds_bos", "merges") if name in options}
    return Renderer(samples.byte_tokenizer(template, **settings), **options)


def trained(made: Renderer, conversation: Conversation, notes: RenderNotes | None = None) -> list[list[str]]:
    """The texts that are trained on, of each row."""
    rows = made.train_rows(conversation, notes=notes)
    return [[made.tokenizer.decode(ids) for ids in row.targets()] for row in rows]


def check_prompts(made: Renderer, conversation: Conversation) -> int:
    """What stands before each answer is what a sampler gets for it; returns how many answers there were."""
    asked = [
        number for number, message in enumerate(conversation.messages) if message["role"] == "assistant" and number
    ]
    prompts = [made.prompt(Conversation(conversation.messages[:number], conversation.tools)) for number in asked]
    opening = made.plain_ids(made.opening) if made.opening else []
    found = 0
    for row in made.train_rows(conversation):
        weights = row.weights.tolist()
        for start in (n for n in range(1, len(weights)) if weights[n] and not weights[n - 1]):
            before = row.ids[:start].tolist()
            if start == len(made.plain_ids("<|im_start|>assistant\n")):
                continue  # an assistant's greeting: no sampler begins with it
            assert before in prompts or before in [[*prompt, *opening] for prompt in prompts]
            found += 1
    return found


def test_the_end_of_the_turn_is_trained_on():
    row = renderer().train_rows(chat(("u", "Hi"), ("a", "Ok")))[0]
    assert row.targets() == [[79, 107, 260]]
    assert row.ids.tolist()[-1] == 10 and len(row.ids) - 1 == len(row.needed().ids)  # the line feed is not needed
    short, long = (renderer().train_rows(chat(("u", "Hi"), ("a", answer)))[0] for answer in ("Ok", "Okokok"))
    assert [row.targets()[-1].count(260) for row in (short, long)] == [1, 1]


def test_end_ids_are_those_of_the_tokenizer_the_template_and_the_model():
    assert renderer().end_ids == (257, 260)
    assert renderer(end_ids=[258]).end_ids == (257, 258, 260)
    assert renderer(samples.LLAMA3).end_of_turn == "<|eot_id|>"


def test_one_bos():
    made = renderer(samples.BOS, adds_bos=True)
    question = chat(("u", "Hi"))
    row = made.train_rows(chat(("u", "Hi"), ("a", "Ok")))[0].ids.tolist()
    assert row[:2] == [256, 259] and row.count(256) == 1
    prompt = made.prompt(question)
    assert prompt[:2] == [256, 259] and prompt.count(256) == 1
    assert row[: len(prompt)] == prompt
    assert made.plain_ids("Hi") == [256, 72, 105]
    assert made.plain_ids("<bos>Hi") == [256, 72, 105]
    assert renderer().plain_ids("Hi") == [72, 105]


def test_a_default_system_message_is_told():
    made = renderer(samples.DROPS_THOUGHTS)
    assert made.added == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    notes = RenderNotes()
    without = made.render(chat(("u", "Hi"), ("a", "Ok")), False)
    made.train_rows(chat(("u", "Hi"), ("a", "Ok")), notes=notes)
    assert without.count("You are a helpful assistant.") == 1
    assert list(notes.counts.values()) == [1] and "You are a helpful assistant." in next(iter(notes.counts))
    notes = RenderNotes()
    terse = chat(("s", "Be terse."), ("u", "Hi"), ("a", "Ok"))
    made.train_rows(terse, notes=notes)
    assert not notes.counts
    assert "Be terse." in made.render(terse, False) and "helpful" not in made.render(terse, False)
    assert check_prompts(made, terse) == 1


THOUGHTS = chat(("u", "a"), ("a", "<think>x</think>b"), ("u", "c"), ("a", "<think>y</think>d"))


@pytest.mark.parametrize("template", [samples.DROPS_THOUGHTS, samples.DROPS_BUT_LAST_ANSWER])
def test_thoughts_that_the_template_drops_are_not_trained_on(template):
    made, notes = renderer(template), RenderNotes()
    texts = trained(made, THOUGHTS, notes)
    assert [text for row in texts for text in row] == ["b<|im_end|>", "<think>y</think>d<|im_end|>"]
    # The second answer's prompt has the first thought where only the last answer keeps its own: a row of its own.
    assert len(texts) == (1 if template == samples.DROPS_THOUGHTS else 2)
    assert any("leaves out thoughts" in note for note in notes.counts)
    assert check_prompts(made, THOUGHTS) == 2


def test_an_empty_thought_of_the_template_is_not_trained_on():
    made, notes = renderer(samples.EMPTY_THOUGHT), RenderNotes()
    plain = chat(("u", "a"), ("a", "b"), ("u", "c"), ("a", "d"))
    assert trained(made, plain, notes) == [["b<|im_end|>", "d<|im_end|>"]]
    assert any(r"<think>\n\n</think>\n\n" in note and "not trained on" in note for note in notes.counts)
    assert trained(made, chat(("u", "a"), ("a", ""))) == [["<|im_end|>"]]
    assert check_prompts(made, plain) == 2
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "x"}]
    assert trained(made, Conversation.of(messages)) == [["<think>\nx\n</think>\n\nb<|im_end|>"]]
    assert trained(made, THOUGHTS) == [["b<|im_end|>", "<think>\ny\n</think>\n\nd<|im_end|>"]]
    # In place of thoughts that it drops, some put an empty one.
    always = samples.EMPTY_THOUGHT.replace(" and loop.index0 > ns.last and (loop.last or thought)", "").replace(
        "'<think>\n' + thought", "'<think>\n' + (thought if loop.index0 > ns.last else '')")  # fmt: skip
    dropped = renderer(always)
    assert trained(dropped, THOUGHTS) == [["b<|im_end|>", "<think>\ny\n</think>\n\nd<|im_end|>"]]
    # With the option the sampler's prompt has the empty thought, and the first answer does not follow one.
    told = renderer(samples.EMPTY_THOUGHT, options={"enable_thinking": False})
    assert trained(told, plain) == [["b<|im_end|>"], ["d<|im_end|>"]]
    assert check_prompts(told, plain) == 2


def test_what_an_answer_begins_with_is_trained_on_wherever_the_template_puts_it():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "so", "tool_calls": [call]}]
    said = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>so<|im_end|>'
    assert trained(renderer(samples.CALLS_FIRST), Conversation.of(messages)) == [[said]]
    made = renderer(samples.EMPTY_THOUGHT)
    # As answers lie in data where the sampler's prompt had begun the thought.
    assert trained(made, chat(("u", "a"), ("a", "x</think>b"))) == [["<think>\nx\n</think>\n\nb<|im_end|>"]]
    assert trained(made, chat(("u", "a"), ("a", " b"))) == [[" b<|im_end|>"]]  # behind the empty thought


def test_the_end_of_an_answer_is_its_own_where_the_end_of_text_stands_once():
    made, end = renderer(samples.ENDS_ONCE), "<|eot_id|>\n<eos>"
    assert trained(made, chat(("u", "a"), ("a", "b"))) == [[f"b{end}"]]
    assert trained(made, chat(("u", "a"), ("a", "b"), ("u", "c"), ("a", "d"))) == [[f"b{end}"], [f"d{end}"]]
    for last in ("c", "", " \n"):
        assert trained(made, chat(("u", "a"), ("a", "b"), ("u", last))) == [[f"b{end}"]]


ALL_KINDS = (
    samples.CHATML, samples.LLAMA3, samples.MISTRAL, samples.GEMMA, samples.DROPS_THOUGHTS, samples.ENDS_ONCE,
    samples.DROPS_BUT_LAST_ANSWER, samples.EMPTY_THOUGHT, samples.TOOLS_TOJSON, samples.CALLS_FIRST,
)  # fmt: skip
PIECES = ("a", "b", "ab", " ", "\n", "é😀\u2028", "<think>", "</think>", "assistant", "{x}", "[/INST]")


@pytest.mark.parametrize("template", ALL_KINDS)
def test_in_any_conversation_prompts_are_a_samplers_and_others_words_change_no_target(template):
    """Drawn at random: empty messages, thoughts well formed or not, calls, special tokens in what users say."""
    made, draw = renderer(template, merges=[("a", "b"), ("Ċ", "Ċ")]), random.Random(str(ALL_KINDS.index(template)))
    tools = template in (samples.TOOLS_TOJSON, samples.CALLS_FIRST, samples.EMPTY_THOUGHT)
    opening, used = made.plain_ids(made.opening) if made.opening else [], 0

    def words(*more: str) -> str:
        return "".join(draw.choice([*PIECES, *more]) for _ in range(draw.randint(0, 5)))

    def turn() -> list[dict]:
        said = [
            {"role": "user", "content": words("<|im_end|>", "<|eot_id|>")} for _ in range(1 + (draw.random() < 0.1))
        ]
        answer: dict = {"role": "assistant", "content": words()}
        kind = draw.choice(["plain", "plain", "thought", "reasoning", "call"])
        if kind == "thought":
            answer["content"] = f"<think>{words()}</think>{words()}"
        elif kind == "reasoning":
            answer["reasoning_content"] = words() or "r"
        elif kind == "call" and tools:
            answer["tool_calls"] = [{"function": {"name": "f", "arguments": {"x": words()}}}]
            said += [answer, {"role": "tool", "content": words("<|im_end|>")}]
            answer = {"role": "assistant", "content": words()}
        return [*said, answer]

    def targets(messages: list[dict]) -> list[list[int]]:
        return [ids for row in made.train_rows(Conversation.of(messages)) for ids in row.targets()]

    for _ in range(60):
        messages = [message for _ in range(draw.randint(1, 3)) for message in turn()]
        messages += [{"role": "user", "content": words()}] if draw.random() < 0.2 else []
        asked = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        other = draw.choice([number for number in range(len(messages)) if number not in asked])
        changed = [dict(message) for message in messages]
        changed[other]["content"] = words("<|im_start|>")
        try:
            rows = made.train_rows(Conversation.of(messages))
            prompts = [made.prompt(Conversation.of(messages[:number])) for number in asked]
            before, after = targets(messages), targets(changed)
        except RowError:
            continue  # templates that want roles to alternate
        used += 1
        assert before == after and len(before) == len(asked), messages
        for row in rows:
            weights = row.weights.tolist()
            for start in (n for n in range(1, len(weights)) if weights[n] and not weights[n - 1]):
                read = row.ids[:start].tolist()
                assert read in prompts or read in [[*prompt, *opening] for prompt in prompts], messages
    assert used > 30


@pytest.mark.parametrize(
    ("template", "end"),
    [(samples.CHATML, "<|im_end|>"), (samples.LLAMA3, "<|eot_id|>"), (samples.MISTRAL, "<eos>"),
     (samples.GEMMA, "<end_of_turn>"), (samples.DROPS_THOUGHTS, "<|im_end|>")],
)  # fmt: skip
def test_whatever_a_user_says_changes_nothing_of_what_is_trained(template, end):
    made = renderer(template)
    said = ["Hi", "", " \n ", "<|im_end|>", f"b{end}", "<|im_start|>assistant\nno<|im_end|>", "[/INST] x", "é😀\u2028",
            "\U000f0002", "a" * 300, "<think>x</think>", "assistant", "{{ 1 }}"]  # fmt: skip
    space = " " if template == samples.MISTRAL else ""  # no generation prompt has it
    for text in said:
        conversation = chat(("u", text), ("a", "one"), ("u", f"more {text}"), ("a", "two\nlines"))
        assert trained(made, conversation) == [[f"{space}one{end}", f"{space}two\nlines{end}"]], text
        assert check_prompts(made, conversation) == 2


def test_white_space_of_answers_is_kept_or_trimmed_as_the_template_does():
    spaced = chat(("u", "a"), ("a", "\n b \n"))
    assert trained(renderer(), spaced) == [["\n b \n<|im_end|>"]]
    assert trained(renderer(samples.LLAMA3), spaced) == [["b<|eot_id|>"]]
    assert trained(renderer(), chat(("u", "a"), ("a", "  "))) == [["  <|im_end|>"]]
    assert trained(renderer(), chat(("u", "a"), ("a", "b<|im_end|>c"))) == [["b<|im_end|>c<|im_end|>"]]


def test_tool_calls_are_rendered_once_as_json():
    rendered = []
    for arguments in ('{"city": "SF"}', {"city": "SF"}):
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "content": "<|im_end|> 12"}, {"role": "assistant", "content": "12"}]  # fmt: skip
        conversation = Conversation.of(messages)
        for template in (samples.TOOLS_TOJSON, samples.TOOLS_AS_TEXT, samples.TOOLS_PRINTED):
            made = renderer(template)
            rendered.append(made.render(conversation, False))
            answer = '<tool_call>weather {"city": "SF"}</tool_call><|im_end|>'
            assert trained(made, conversation) == [[answer, "12<|im_end|>"]]
            assert check_prompts(made, conversation) == 2
    assert len(set(rendered)) == 1 and rendered[0].count('{"city": "SF"}') == 1 and "\\" not in rendered[0]


def test_arguments_keep_what_they_have_and_no_more():
    calls = [
        {"name": "f", "arguments": '{"x": 1, "z": null}'},
        {"function": {"name": "g", "arguments": {"y": "<|im_end|>"}}},
    ]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "so:", "tool_calls": calls}]
    text = 'so:<tool_call>f {"x": 1, "z": null}</tool_call><tool_call>g {"y": "<|im_end|>"}</tool_call><|im_end|>'
    assert trained(renderer(samples.TOOLS_TOJSON), Conversation.of(messages)) == [[text]]
    with pytest.raises(RowError, match="leaves out tool calls .message 2, assistant"):
        renderer().train_rows(Conversation.of(messages))
    with pytest.raises(RowError, match="arguments are not JSON .message 2: Expecting"):
        Conversation.of([messages[0], {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{x: 1}"}]}])


ORDERS = [
    chat(("u", "a"), ("a", "b")),
    chat(("u", "a"), ("u", "b"), ("a", "c")),
    chat(("a", "Hello"), ("u", "a"), ("a", "b")),
    chat(("u", "a"), ("a", "b"), ("s", "Be terse."), ("u", "c"), ("a", "d")),
    chat(("u", "a"), ("a", "b"), ("u", "c")),
    chat(("u", "a"), ("a", "")),
]


def test_every_order_that_the_template_renders_is_used():
    made, notes = renderer(), RenderNotes()
    texts = [trained(made, order, notes) for order in ORDERS]
    end = "<|im_end|>"
    assert texts == [[["b" + end]], [["c" + end]], [["Hello" + end, "b" + end]], [["b" + end, "d" + end]],
                     [["b" + end]], [[end]]]  # fmt: skip
    assert notes.counts == {EMPTY_ANSWER: 1}
    assert sum(check_prompts(made, order) for order in ORDERS) == 7
    strict, refused = renderer(samples.ALTERNATES), []
    for order in ORDERS:
        try:
            strict.train_rows(order)
        except RowError as error:
            refused.append(str(error))
    assert len(refused) == 2 and "Conversation roles must alternate" in refused[0]
    assert "System role not supported" in refused[1]


def test_several_messages_in_a_row():
    call = {"function": {"name": "f", "arguments": {}}}
    said = "<tool_call>f {}</tool_call><|im_end|>"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call, call]},
                {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"},
                {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": ""},
                {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]  # fmt: skip
    made, conversation = renderer(samples.TOOLS_TOJSON), Conversation.of(messages)
    texts = ["<tool_call>f {}</tool_call>" + said, said, "a<|im_end|>", "b<|im_end|>"]
    assert trained(made, conversation) == [texts]
    assert check_prompts(made, conversation) == 4


def test_a_message_that_the_template_leaves_out_is_refused():
    ignores = samples.CHATML.replace("{{ '<|im", "{% if message['role'] != 'system' %}{{ '<|im", 1).replace(
        "{% endfor", "{% endif %}{% endfor")  # fmt: skip
    with pytest.raises(RowError, match="leaves out a message .message 1, system"):
        renderer(ignores).train_rows(chat(("s", "Be terse."), ("u", "a"), ("a", "b")))


def test_weights_of_messages():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},
                {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1}]  # fmt: skip
    made = renderer()
    assert trained(made, Conversation.of(messages)) == [["d<|im_end|>"]]
    row = renderer(train_on="all").train_rows(Conversation.of(messages))[0]
    assert row.trained == len(row.ids) - 1 and row.weights[0] == 0
    assert made.train_rows(chat(("u", "a"))) == []
    for flag, wanted in (
        ({"train": False}, []),
        ({"training": True}, [["b<|im_end|>"]]),
        ({"train": None}, [["b<|im_end|>"]]),
    ):
        message = {"role": "assistant", "content": "b", **flag}
        assert trained(made, Conversation.of([messages[0], message])) == wanted
    with pytest.raises(RowError, match="message's train must be 0 or 1 .message 1 has 'no'"):
        Conversation.of([{"role": "assistant", "content": "b", "train": "no"}])
    with pytest.raises(RowError, match="weight and train say different things .message 1"):
        Conversation.of([{"role": "assistant", "content": "b", "train": True, "weight": 0}])


def test_special_tokens_in_texts_are_told():
    """An answer that brings its own end has two, and a user who writes a token's name puts in the token."""
    made, notes = renderer(), RenderNotes()
    (row,) = made.train_rows(chat(("u", "Hi"), ("a", "Ok<|im_end|>")), notes=notes)
    assert row.targets() == [[79, 107, 260, 260]]
    told = "answers have <|im_end|> in their text: it ends them there, and the template writes the end once more"
    assert notes.counts == {told: 1}
    notes = RenderNotes()
    (row,) = made.train_rows(chat(("u", "a<|im_end|>b<eos><|im_end|>"), ("a", "Ok <|im_END|>")), notes=notes)
    assert row.ids.tolist().count(260) == 4
    assert notes.counts == {f"messages have {sign} in their text: it is read as a special token": 1
                            for sign in ("<|im_end|>", "<eos>")}  # fmt: skip


def test_prompt_and_completion_are_encoded_apart():
    made = renderer(merges=[("a", "b")])
    assert made.tokenizer.encode("ab") == [256 + len(samples.SPECIAL)]
    row = made.train_rows(Completion("a", "b"))[0]
    assert row.ids.tolist() == [97, 98, 257] and row.targets() == [[98, 257]]
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice("ab é\n") for _ in range(draw.randint(2, 30)))
        cut = draw.randint(0, len(text) - 1)
        row = made.train_rows(Completion(text[:cut], text[cut:]))[0]
        prompt = made.tokenizer.encode(text[:cut])
        assert row.ids[: len(prompt)].tolist() == prompt == made.prompt(Completion(text[:cut], ""))
        answer = row.ids[len(prompt) :].tolist()
        assert made.tokenizer.decode(answer) == text[cut:] + "<eos>"
        assert not row.weights[: len(prompt)].any() and row.weights[max(len(prompt), 1) :].all()


def test_answers_of_a_conversation_are_encoded_apart():
    glued = samples.CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant a'").replace(
        "message['role'] + '\n'", "message['role'] + ' a'")  # fmt: skip
    made = renderer(glued, merges=[("a", "b")])
    row = made.train_rows(chat(("u", "x"), ("a", "b"), ("u", "y"), ("a", "bb")))[0]
    assert row.targets() == [[98, 260], [98, 98, 260]]
    assert check_prompts(made, chat(("u", "x"), ("a", "b"), ("u", "y"), ("a", "bb"))) == 2


def test_a_document_is_trained_to_its_end():
    made = renderer(samples.BOS, adds_bos=True)
    row = made.train_rows(Document("Hi"))[0]
    assert row.ids.tolist() == [256, 72, 105, 257] and row.targets() == [[72, 105, 257]]
    assert made.prompt(Document("Hi")) == [256, 72, 105]


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_tokenizer_that_puts_a_space_in_front_puts_none_inside(scheme):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", *dict.fromkeys("▁abcdefghijklmnopqrstuvwxyz[]/INST\n<>|_:"), "▁[", "▁b"]
    bpe = models.BPE(
        {letter: number for number, letter in enumerate(letters)}, [("▁", "["), ("▁", "b")], unk_token="<unk>"
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                                   chat_template=samples.MISTRAL)  # fmt: skip
    made = Renderer(fast)
    whole = chat(("u", "a"), ("a", "b"), ("u", "c"), ("a", "bd"))
    row = made.train_rows(whole)[0]
    assert [fast.convert_ids_to_tokens(ids) for ids in row.targets()] == [["▁b", "</s>"], ["▁b", "d", "</s>"]]
    assert row.ids.tolist() == fast.encode(made.render(whole, False), add_special_tokens=False)
    assert check_prompts(made, whole) == 2
    completion = made.train_rows(Completion("a", "b"))[0]
    assert fast.convert_ids_to_tokens(completion.ids.tolist()) == ["▁", "a", "b", "</s>"]


def test_a_template_whose_answers_cant_be_told_is_refused():
    for template, words in (
        (samples.NO_END, "never learns to stop"),
        (samples.NO_GENERATION_PROMPT, 'writes "<|im_start|>assistant\\n" before an answer, but not with'),
        (samples.OTHER_PROMPT.replace("'\n' + m", "'\n' + 'x' + m"), "is not how it begins the conversation"),
        (samples.CHATML.replace("message['content']", "message['content'] | upper | replace('A', 'B')"), None),
        ("{{ raise_exception('no chat') }}", "no chat"),
        ("{{ messages | length }}", "does not write answers as they are"),
        ("{% if %}", "the chat template refuses it"),
    ):
        if words is None:
            assert trained(renderer(template), chat(("u", "a"), ("a", "xa"))) == [["XB<|im_end|>"]]
            continue
        with pytest.raises(TemplateError) as told:
            renderer(template)
        assert words in str(told.value)
    with pytest.raises(TemplateError, match="no chat template"):
        renderer(None)
    with pytest.raises(DataError, match="train_on is me; allowed are answers and all"):
        renderer(train_on="me")


def test_rows_that_need_no_template_can_be_used_with_one_that_is_refused():
    """What its refusal advises."""
    with pytest.raises(TemplateError, match="or train on rows of prompt and completion"):
        renderer(samples.NO_GENERATION_PROMPT.replace("{{ '<|", "{% if 0 %}{{ '<|"))
    made = renderer(samples.NO_END, lenient=True, end_ids=[65])
    assert made.refused is not None and "never learns to stop" in str(made.refused)
    assert (made.template, made.end_of_turn, made.end_ids) == (samples.NO_END, "<eos>", (65, 257))
    assert made.train_rows(Completion("a", "b"))[0].targets() == [[98, 257]]
    assert made.train_rows(Document("ab"))[0].ids.tolist() == [97, 98, 257]
    for ask in (made.train_rows, made.prompt, lambda talk: made.render(talk, True)):
        with pytest.raises(TemplateError, match="never learns to stop"):
            ask(chat(("u", "a"), ("a", "b")))
    assert renderer(lenient=True).refused is None
    endless = samples.byte_tokenizer(samples.NO_END)
    endless.eos_token = None
    with pytest.raises(DataError, match="no token that ends a text"):
        Renderer(endless, lenient=True).train_rows(Document("ab"))


def test_a_prompt_that_begins_a_thought_needs_one():
    thought = "('<think>\n' + message.reasoning_content + '</think>' if message.reasoning_content else '')"
    template = samples.CHATML.replace("+ message['content']", f"+ {thought} + message['content']")
    template = template.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    made = renderer(template)
    assert made.needs_thoughts
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "x"}]
    assert trained(made, Conversation.of(messages)) == [["x</think>b<|im_end|>"]]
    with pytest.raises(RowError, match="its prompt begins a thought and the answer has none .message 2"):
        made.train_rows(chat(("u", "a"), ("a", "b")))


def test_the_date_is_the_same_each_day():
    assert renderer(samples.DATED).render(chat(("u", "a")), True).startswith("26 Jul 2024\n")
    made = renderer(samples.DATED, now=datetime(2026, 1, 2))
    assert made.uses_clock and made.render(chat(("u", "a")), True).startswith("02 Jan 2026\n")
    assert not renderer().uses_clock


def test_a_prompt_goes_on_from_what_was_sampled():
    made = renderer(merges=[("a", "b")])
    merged, answer = 256 + len(samples.SPECIAL), [97, 98, 260]
    talk = chat(("u", "x"), ("a", "ab"), ("u", "y"))
    first, encoded = made.prompt(chat(("u", "x"))), made.prompt(talk)
    assert encoded[len(first) : len(first) + 2] == [merged, 260]
    goes_on = made.prompt(talk, sampled={1: answer})
    assert goes_on[: len(first) + 3] == [*first, *answer]
    assert goes_on[len(first) + 3 :] == encoded[len(first) + 2 :]
    assert made.prompt(talk, sampled={1: answer[:2]}) == goes_on  # cut off: the template ends it
    assert made.prompt(talk, sampled={1: [97, 97, 260]}) == encoded  # another text
    half = bytes([97, 0xC3])  # half a character is shown as U+FFFD, and kept as it was sampled
    broken = made.prompt(chat(("u", "x"), ("a", half.decode(errors="replace")), ("u", "y")), sampled={1: [*half, 260]})
    assert broken[: len(first) + 3] == [*first, *half, 260]
    drops = renderer(samples.DROPS_THOUGHTS)
    thought = drops.tokenizer.encode("<think>x</think>b<|im_end|>")
    told = chat(("u", "x"), ("a", "<think>x</think>b"), ("u", "y"))
    assert drops.prompt(told, sampled={1: thought}) == drops.prompt(told)


def test_the_end_of_text_ends_an_answer_that_has_an_end_of_its_own_before_it():
    template = samples.CHATML.replace("'<|im_end|>\n'", "'<|eot_id|><|im_end|>\n'")
    tokenizer = samples.byte_tokenizer(template)
    tokenizer.eos_token = "<|im_end|>"
    made = Renderer(tokenizer)
    assert made.end_of_turn == "<|im_end|>" and made.end_ids == (260,)
    talk = chat(("u", "a"), ("a", "b"), ("u", "c"), ("a", "d"))
    assert trained(made, talk) == [["b<|eot_id|><|im_end|>", "d<|eot_id|><|im_end|>"]]
    assert trained(renderer(template), talk) == [["b<|eot_id|>", "d<|eot_id|>"]]


def test_a_beginning_that_headers_share_is_no_bos():
    from transformers import PreTrainedTokenizerFast

    tokenizer = samples.byte_tokenizer(samples.DROPS_THOUGHTS)
    tokenizer.bos_token = "<|im_start|>"
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert Renderer(tokenizer).added == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def test_options_are_read():
    assert parse_options("enable_thinking=false, effort = low,n=3,") == {
        "enable_thinking": False,
        "effort": "low",
        "n": 3,
    }
    assert parse_options("") == {}
    with pytest.raises(DataError, match="template_options is thinking; it must be such as"):
        parse_options("thinking")


def test_prompts_are_those_of_transformers():
    for template in (samples.CHATML, samples.LLAMA3, samples.MISTRAL, samples.GEMMA, samples.DROPS_THOUGHTS):
        made = renderer(template)
        messages = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Ok"},
                    {"role": "user", "content": "And?"}]  # fmt: skip
        ids = made.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert made.prompt(Conversation.of(messages)) == list(ids)
