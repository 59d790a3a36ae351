"""The user's own table of results."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from data.data_error import DataError
from evaluation.recommendation.results_table import MeasuredResult, append_results, read_results


def test_rows_are_added_and_newer_ones_take_the_place_of_older(tmp_path):
    table = tmp_path / "a" / "results.csv"
    one = MeasuredResult("timm/a", "photos", "accuracy", 0.5, 0.4, 90, 3, "d1", 0.4, 0.6, 1, "full")
    other = MeasuredResult("b, c", "photos", "accuracy", 0.7)
    append_results([one, other], table)
    newer = MeasuredResult("timm/a", "photos", "accuracy", 0.8, 0.4, 90, 3, "d1", 0.7, 0.9, 3, "full")
    append_results([newer], table)
    assert read_results(table) == [other, newer]


def test_columns_of_the_user_stay(tmp_path):
    table = tmp_path / "results.csv"
    table.write_text("model,remark,dataset,metric,value\nx,mine,d,accuracy,0.9\n")
    append_results([MeasuredResult("y", "d", "accuracy", 0.8)], table)
    lines = table.read_text().splitlines()
    assert lines[0].startswith("model,remark,dataset,metric,value,probe_accuracy") and lines[1].startswith("x,mine,d")
    assert [result.model for result in read_results(table)] == ["x", "y"]


def test_several_that_append_lose_nothing(tmp_path):
    table = tmp_path / "results.csv"
    rows = [MeasuredResult(f"m{number}", "d", "accuracy", 0.5) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: append_results([row], table), rows))
    assert {result.model for result in read_results(table)} == {row.model for row in rows}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model,dataset,value\nx,d,1\n", "there is no column metric; needed are model, dataset, metric, value"),
        ("model,dataset,metric,value\nx,d,accuracy,good\n", "row 2: value is 'good'; it must be a number"),
        ("model,dataset,metric,value\nx,d,accuracy,\n", "row 2: value is ''; it must be a finite number"),
        ("model,dataset,metric,value\nx,d\n", "row 2: 2 cells, the header has 4 columns"),
        ("", "there is no column model"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, told):
    table = tmp_path / "results.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=told):
        read_results(table)
