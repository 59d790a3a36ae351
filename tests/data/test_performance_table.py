"""Tables of results: every accepted form is read, and every wrong one gets its text."""

import re

import numpy as np
import pytest

from data.data_error import DataError
from data.performance_table import read_performance_table

HEADER = "model,dataset,metric,value\n"
ROWS = "".join(f"{model},{dataset},acc,0.{m}{d}\n" for m, model in enumerate("ab") for d, dataset in enumerate("xyz"))


@pytest.fixture
def write(tmp_path):
    def write_file(text: str | bytes, name: str = "table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def message(path, **others) -> str:
    with pytest.raises(DataError) as caught:
        read_performance_table(path, **others)
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_a_table_is_read_in_the_order_of_the_file_and_empty_cells_are_missing(write):
    table = read_performance_table(write(HEADER + ROWS + "c,z,acc,\n\nc,x,acc,0.5\n"))
    assert table.models == ("a", "b", "c") and table.datasets == ("x", "y", "z") and table.metrics == ("acc",) * 3
    np.testing.assert_array_equal(table.values, [[0, 0.01, 0.02], [0.1, 0.11, 0.12], [0.5, np.nan, np.nan]])
    assert table.values.dtype == np.float64 and not table.scores and not table.distances


def test_byte_order_mark_crlf_spaces_and_quotes_are_tolerated(write):
    text = (HEADER + ROWS).replace(",", " , ").replace("\n", "\r\n") + '"a, b",x,acc,1\r\n'
    table = read_performance_table(write(b"\xef\xbb\xbf" + text.encode()))
    assert table.models == ("a", "b", "a, b") and table.values[2, 0] == 1.0


def test_columns_that_say_one_thing_of_a_model_or_dataset_are_kept_and_others_left_out(write):
    rows = "".join(
        f"{model},{dataset},acc,0.5,{family},{words},{model}{dataset},same\n"
        for model, family in (("a", "cnn"), ("b", "vit"))
        for dataset, words in (("x", "p_q"), ("y", "p"), ("z", ""))
    )  # fmt: skip
    table = read_performance_table(write(HEADER.strip() + ",family,words,run,constant\n" + rows))
    assert table.model_columns == {"family": ("cnn", "vit")}
    assert table.dataset_columns == {"words": ("p_q", "p", "")}


def test_several_metrics_are_fine_where_each_dataset_has_one_and_can_be_chosen_otherwise(write):
    path = write(HEADER + ROWS.replace("x,acc", "x,mse"))
    assert read_performance_table(path).metrics == ("mse", "acc", "acc")
    path = write(HEADER + ROWS + ROWS.replace("acc,0", "f1,7"))
    assert message(path) == (
        "table.csv:8: 'x' has results by 'acc' and by 'f1'; a dataset has one metric. Choose it with --metric acc, "
        "or give each metric a file."
    )
    assert read_performance_table(path, metric="f1").values[0, 0] == 7.0
    assert message(path, metric="f2") == "table.csv: there is no metric 'f2'; its metrics: acc, f1."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "table.csv is empty; its first line names the columns, such as model,dataset,metric,value."),
        (
            "model,dataset,value\na,x,1\n",
            "table.csv:1: there is no column 'metric'; the columns are model, dataset, value. Write a first line with "
            "names, and commas between columns.",
        ),
        (
            HEADER.replace(",", ";"),
            "table.csv:1: there is no column 'model'; the columns are model;dataset;metric;value. Write a first line "
            "with names, and commas between columns.",
        ),
        ("model,dataset,metric,value,value\n", "table.csv:1: the column 'value' is there twice; rename one."),
        (
            HEADER + "a,x,acc,high\n",
            "table.csv:2: value 'high' is no number. Write it as 0.912, with a point. Leave the cell empty where "
            "nothing was measured.",
        ),
        (
            HEADER + ROWS + "c,x,acc,-inf\n",
            "table.csv:8: value '-inf' is not finite. Leave the cell empty where nothing was measured.",
        ),
        (
            HEADER + ROWS + "a,y,acc,0.3\n",
            "table.csv:8: 'a' on 'y' by 'acc' was given in line 3; keep one of the two, or their mean.",
        ),
        (
            HEADER + "a,x,acc,0,5\n",
            'table.csv:2: 5 cells, the header has 4 columns. Put quotation marks around a text that holds a comma: "a, '
            'b".',
        ),
        (HEADER + ",x,acc,0.5\n", "table.csv:2: 'model' is empty; every row names its model."),
        (
            HEADER + "a,x,acc,1\nb,x,acc,2\na,y,acc,2\n",
            "table.csv: 2 datasets (x, y); 3 or more are needed: a dataset is left out, and models are ranked for it "
            "by their results on the others.",
        ),
        (
            HEADER,
            "table.csv: 0 datasets (no rows); 3 or more are needed: a dataset is left out, and models are ranked for "
            "it by their results on the others.",
        ),
        (
            HEADER + ROWS.replace("b,z,acc,0.12", "b,z,acc,"),
            "table.csv: 'z' has a value of 1 model; 2 or more are needed to rank. Measure more, or take its rows out.",
        ),
        (
            b"\x89PNG\xff\xfe",
            "table.csv is no CSV text in UTF-8: 'utf-8' codec can't decode byte 0x89 in position 0: invalid start "
            "byte. Save the table as CSV (UTF-8).",
        ),
        (
            HEADER + 'a,x,acc,"1\n',
            "table.csv is no CSV text in UTF-8: unexpected end of data. Save the table as CSV (UTF-8).",
        ),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(write, text, expected):
    assert message(write(text)) == expected


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert message(tmp_path / "none.csv") == "cannot read none.csv: No such file or directory. Check the path."
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == "cannot read folder: Is a directory. Check the path."


def test_models_are_joined_and_columns_of_the_table_stay(write):
    text = HEADER.strip() + ",family\n" + "".join(f"{row},{row[0]}_\n" for row in ROWS.splitlines())
    models = write("model,size,same\nb,10,1\nother,3,2\na,,1\n", "models.csv")
    table = read_performance_table(write(text), models=models)
    assert table.model_columns == {"family": ("a_", "b_"), "size": ("", "10")}


def test_wrong_models_are_refused(write):
    path = write(HEADER + ROWS)
    assert message(path, models=write("model,n\na,1\na,2\n", "m.csv")) == (
        "m.csv:3: 'a' was given in line 2; keep one row a model."
    )
    assert message(path, models=write("model,n\nA,1\n", "m.csv")) == (
        "m.csv: none of its models is in the table; names must be spelt alike."
    )
    assert message(path, models=write("name,n\nA,1\n", "m.csv")).startswith("m.csv:1: there is no column 'model';")


@pytest.mark.parametrize("kind", ["metric", "method"])
def test_long_scores_are_read_and_pairs_outside_the_table_left_out(write, kind):
    text = f"model,dataset,{kind},value,seconds\na,x,logme,1.5,9\nb,x,logme,,9\nb,y,leep,-2,9\nc,x,logme,4,9\n"
    table = read_performance_table(write(HEADER + ROWS), scores=write(text, "s.csv"))
    nan = np.nan
    np.testing.assert_array_equal(table.scores["logme"], [[1.5, nan, nan], [nan, nan, nan]])
    np.testing.assert_array_equal(table.scores["leep"], [[nan, nan, nan], [nan, -2, nan]])


def test_wide_scores_are_read(write):
    scores = write("dataset,model,logme,leep\nx,a,1.5,\ny,b,2,3\n", "s.csv")
    table = read_performance_table(write(HEADER + ROWS), scores=scores)
    assert table.scores["logme"][0, 0] == 1.5 and table.scores["leep"][1, 1] == 3.0
    assert np.isnan(table.scores["leep"][0, 0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model,dataset\na,x\n",
            "s.csv:1: there is no score; add columns 'metric' and 'value', or a column for each score.",
        ),
        ("model,dataset,s\na,x,1\na,x,2\n", "s.csv:3: s of 'a' on 'x' was given in line 2; keep one."),
        (
            "model,dataset,s\nc,x,1\n",
            "s.csv: none of its pairs is in the table; models and datasets must be spelt alike.",
        ),
        (
            "model,dataset,s\na,x,nan\n",
            "s.csv:2: s 'nan' is not finite. Leave the cell empty where nothing was measured.",
        ),
    ],
)  # fmt: skip
def test_wrong_scores_are_refused(write, text, expected):
    assert message(write(HEADER + ROWS), scores=write(text, "s.csv")) == expected


def test_distances_are_read_as_rows_or_as_a_square(write):
    path = write(HEADER + ROWS)
    rows = "dataset_a,dataset_b,metric,value\nx,x,l2,0\nx,y,l2,2\nz,y,l2,3\ny,z,l2,5\nx,imagenet,l2,1\n"
    table = read_performance_table(path, distances=write(rows, "d.csv"))
    assert table.distances["y", "x"] == table.distances["x", "y"] == 2.0
    assert table.distances["y", "z"] == table.distances["z", "y"] == 4.0 and table.distances["imagenet", "x"] == 1.0
    square = "name,x,y,z\nx,0,2,\ny,2,0,4\nz,1,4,0\n"
    table = read_performance_table(path, distances=write(square, "d.csv"))
    assert table.distances["x", "y"] == 2.0 and table.distances["x", "z"] == table.distances["z", "x"] == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset_a,dataset_b,value\nx,y,-1\n", "d.csv:2: distance -1 is negative; a distance is 0 or more."),
        ("dataset_a,dataset_b,value\nx,y,1\nx,y,2\n", "d.csv:3: 'x' to 'y' was given in line 2; keep one."),
        (
            "dataset_a,dataset_b,near\nx,y,1\n",
            "d.csv:1: the columns are dataset_a, dataset_b, near; needed are dataset_a, dataset_b and value (or "
            "distance).",
        ),
        (
            "dataset_a,dataset_b,metric,value\nx,y,l2,1\nx,z,cos,2\n",
            "d.csv:3: distances by 'l2' and by 'cos'; keep the rows of one.",
        ),
        (
            "dataset_a,dataset_b,value\nX,Y,1\n",
            "d.csv: none of its pairs are datasets of the table; names must be spelt alike.",
        ),
        ("name,x,y\nx,0,1\nx,1,0\n", "d.csv:3: 'x' was given in line 2; keep one row a dataset."),
        (
            "name,x,y\nw,0,1\n",
            "d.csv:2: 'w' is no name of the first line. Distances are a square with the same names in the first row "
            "and column, or columns dataset_a,dataset_b,value.",
        ),
    ],
)  # fmt: skip
def test_wrong_distances_are_refused(write, text, expected):
    assert message(write(HEADER + ROWS), distances=write(text, "d.csv")) == expected


def test_every_error_of_a_line_names_file_and_line(write):
    for text in ("a,x,acc,1e999\n", "a,x,acc,one\n", "a,x\n", "a,,acc,1\n"):
        assert re.match(r"table\.csv:2: ", message(write(HEADER + text)))
