"""A teacher's answers: each depends on its own prompt alone, none is sampled twice, none is lost at an end."""

import dataclasses
import json

import pytest

pytest.importorskip("transformers")

from llm.base_model import load
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest, SamplingSettings
from llm.teacher_answers import Asked, BaseAnswers, prompt_seconds
from storage.answer_journal import read_answers, write_answers

DRAWN = SamplingSettings(temperature=1.0, max_tokens=12, seed=5)
GREEDY = SamplingSettings(temperature=0, max_tokens=12)
SHARED = tuple(range(40, 100))


@pytest.fixture(scope="module")
def base():
    return load("tiny")


def asked(*numbers: int) -> list[Asked]:
    return [
        Asked((*SHARED, 100 + number), {"prompt": [{"role": "user", "content": str(number)}]}) for number in numbers
    ]


def tokens(answers):
    return [[each.tokens for each in some] for some in answers]


def test_an_answer_depends_on_its_prompt_and_number_alone(base, tmp_path):
    several = BaseAnswers(base, DRAWN, tmp_path / "a").answers(asked(1, 2, 3), 2)
    for place, number in enumerate((3, 1, 2)):
        other = BaseAnswers(base, DRAWN, tmp_path / f"b{number}")
        (alone,) = other.answers(asked(number), 3)
        assert [each.tokens for each in alone[:2]] == tokens(several)[(place + 2) % 3]
        assert len({each.tokens for each in alone}) == 3  # drawn, each by itself
    assert len({each for some in tokens(several) for each in some}) == 6
    assert all(len(each.tokens) == 12 or each.finish == "stop" for some in several for each in some)
    another_seed = BaseAnswers(base, dataclasses.replace(DRAWN, seed=6), tmp_path / "a").answers(asked(1), 2)
    assert tokens(another_seed)[0] != tokens(several)[0]
    ((likeliest,),) = BaseAnswers(base, GREEDY, tmp_path / "a").answers(asked(1))
    ((sample,),) = Sampler(base, pack=False).sample([SampleRequest(asked(1)[0].prompt, GREEDY)])
    assert (list(likeliest.tokens), likeliest.text, likeliest.finish) == (sample.tokens, sample.text, sample.finish)
    assert len(list((tmp_path / "a").iterdir())) == 3  # by seed and temperature


def test_what_is_known_is_not_sampled_again(base, tmp_path):
    first = BaseAnswers(base, DRAWN, tmp_path)
    answers = first.answers(asked(1, 2), 2)
    assert first.sampled == 4
    again = BaseAnswers(base, DRAWN, tmp_path)
    assert again.answers(asked(2, 1), 2) == answers[::-1] and again.sampled == 0
    more = again.answers(asked(1, 3, 3), 3)
    assert again.sampled == 4 and more[0][:2] == answers[0] and more[1] == more[2]
    assert json.loads((again.journal.folder / "facts.json").read_text())["temperature"] == 1.0
    before = again.journal.file.read_bytes()
    idle = BaseAnswers(base, DRAWN, tmp_path, keep=False)
    assert len(idle.answers(asked(9))) == idle.sampled == 1 and again.journal.file.read_bytes() == before
    # a run's own answers go first, whatever the journal says
    own = [dataclasses.replace(each, text="own") for each in answers[0]]
    write_answers(tmp_path / "own.jsonl", own)
    of_run = BaseAnswers(base, DRAWN, tmp_path, tmp_path / "own.jsonl").answers(asked(1, 2), 2)
    assert of_run == [own, answers[1]]
    again.forget()
    assert len(again.answers(asked(7))) == 1


def test_another_limit_asks_anew_only_for_what_it_changes(base, tmp_path):
    ends = (*base.end_ids, *range(0, 200, 5))  # so that some answers end early
    ending = dataclasses.replace(base, end_ids=ends)
    long = BaseAnswers(ending, DRAWN, tmp_path / "a")
    answers = long.answers(asked(*range(12)))
    short = BaseAnswers(ending, dataclasses.replace(DRAWN, max_tokens=4), tmp_path / "a")
    shorter = short.answers(asked(*range(12)))
    fitting = sum(len(each.tokens) <= 4 and each.finish == "stop" for (each,) in answers)
    assert 0 < fitting < 12 and short.sampled == 12 - fitting
    for (one,), (other,) in zip(answers, shorter, strict=True):
        assert other.tokens == one.tokens[:4] and other.finish == (one.finish if len(one.tokens) <= 4 else "length")
    anew = BaseAnswers(ending, dataclasses.replace(DRAWN, max_tokens=4), tmp_path / "b").answers(asked(*range(12)))
    assert anew == shorter
    assert BaseAnswers(ending, DRAWN, tmp_path / "a").answers(asked(*range(12))) == answers


def test_what_came_before_an_end_is_used_after_it(base, tmp_path):
    whole = BaseAnswers(base, DRAWN, tmp_path / "whole").answers(asked(*range(6)))
    dying = BaseAnswers(base, DRAWN, tmp_path / "killed")
    keep = dying.journal.keep

    def keep_one_and_end(answers):
        keep(answers[:1])
        raise KeyboardInterrupt

    dying.journal.keep = keep_one_and_end
    with pytest.raises(KeyboardInterrupt):
        dying.answers(asked(*range(6)))
    after = BaseAnswers(base, DRAWN, tmp_path / "killed")
    assert tokens(after.answers(asked(*range(6)))) == tokens(whole) and after.sampled == 5
    assert len(read_answers(after.journal.file)[0]) == 6


def test_progress_is_told_with_what_is_left(base, tmp_path):
    told = []
    BaseAnswers(base, DRAWN, tmp_path).answers(asked(1, 2, 3), tell=told.append)
    assert told[-1].done == told[-1].total == 3 and told[-1].left == 0 and told[-1].tokens > 3
    assert prompt_seconds(base, [[1, 2, 3], [4]]) > 0
