"""What a report says of a language model's answers and of its data."""

import dataclasses
import json

from data.token_rows import RowAccount
from evaluation.report.language_part import data_part, samples_part
from storage.text_samples import SAMPLES, TextSample


def test_answers_are_shown_as_they_are_and_what_nobody_would_see_is_said(tmp_path):
    assert samples_part(tmp_path) is None
    samples = [
        TextSample("line 3", "<b>?\n", "", "a & b", "c", "stop", 4),
        TextSample("line 4", "?", " \n ", "", "", "length", 100),
        TextSample("task 1", "?", "", "d", "", "timed out", 5),
    ]
    (tmp_path / SAMPLES).write_text(json.dumps([dataclasses.asdict(sample) for sample in samples]))
    page = str(samples_part(tmp_path))
    assert page.count("<caption>") == 3 and "<caption>line 3</caption>" in page
    assert '<pre class="wrapped">&lt;b&gt;?\n</pre>' in page and ">a &amp; b</pre>" in page
    assert page.count("before training") == 1 and "<em>white space alone, 3 characters</em>" in page
    assert page.count("the data&#x27;s answer") == 1
    assert page.count("cut off") == page.count("cut off after 100 tokens") == 1 and "answer, timed out<" in page
    assert "<em>nothing</em>" in page


def test_rows_left_out_are_told_with_their_places():
    assert data_part({"perplexity": 3.0, "other": {"a": 1}}) is None
    account = RowAccount("file.jsonl: JSON lines", read=5, used=3, rows=3, tokens=40, trained=10, digest="ab" * 32)
    account.leave_out("line 2", "bad JSON")
    account.leave_out("line 4", "bad JSON")
    page = str(data_part({"train_data": account.state()}))
    for cell in ("file.jsonl: JSON lines", "5", "3", "2", "40", "10 (25 %)", "left out: bad JSON", "line 2, line 4"):
        assert f">{cell}</t" in page
    assert "ab" * 32 in page
