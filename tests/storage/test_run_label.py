"""Names and notes of runs, from `train.py --name` to `plot.py NAME`; folded tables; who won; the best first."""

import json

import pytest

from storage.run_label import RunLabel, read_label, write_label


@pytest.fixture(scope="module")
def runs(shared_project):
    """Two runs with names, a group of two seeds with one, and a run without."""
    project = shared_project
    first = project.run("Seeded", "epochs=2", "--name", "baseline", "--note", "first try")
    second = project.run("Seeded", "epochs=2", "learning_rate=0.1", "--name", "fast")
    group = project.run("Seeded", "epochs=2", "--seeds", "2", "--name", "pair", "--note", "two of them")
    third = project.run("FeatureFusion", "epochs=1")
    for done in (first, second, group, third):
        assert done.returncode == 0, done.stderr
    return project


def plot(project, *words):
    return project.run(*words, script="plot.py")


def test_a_name_and_a_note_are_recorded_and_shown(runs):
    folder = runs.runs("Seeded")[0]
    content = json.loads((folder / "metrics.json").read_text())
    assert (content["name"], content["note"]) == ("baseline", "first try")
    lines = plot(runs, "--runs").stdout.splitlines()
    assert lines[0].split()[:3] == ["trainer", "run", "name"] and lines[0].endswith("note")
    assert "  baseline  " in lines[1] and lines[1].endswith("  first try")
    rows = json.loads(plot(runs, "--runs", "--json", "baseline").stdout)
    assert [(row["name"], row["note"], row["run"]) for row in rows] == [("baseline", "first try", folder.name)]


def test_a_run_is_found_by_its_name(runs):
    done = plot(runs, "baseline", "--report")
    assert done.returncode == 0, done.stderr
    page = (runs.runs("Seeded")[0] / "report.html").read_text()
    assert "Seeded baseline" in page and "first try" in page
    done = plot(runs, "baselin")
    assert done.returncode == 2 and "did you mean baseline?" in done.stderr
    done = runs.run("Seeded", "--resume", "baselin")
    assert done.returncode == 2 and "did you mean baseline?" in done.stderr


def test_the_winner_is_told_first_and_runs_are_called_by_their_names(runs):
    done = plot(runs, "baseline", "fast")
    assert done.returncode == 0, done.stderr
    best = {run.name: json.loads((run / "metrics.json").read_text())["best"] for run in runs.runs("Seeded")[:2]}
    (_, one), (_, two) = best.items()
    low, high = sorted([one["value"], two["value"]])
    winner, loser = ("baseline", "fast") if one["value"] < two["value"] else ("fast", "baseline")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"winner: {winner} with val_loss {low:.6g} at epoch ")
    percent = (high - low) / high * 100
    assert f", lower by {high - low:.3g} ({percent:.2g} %) than {loser} with {high:.6g} at epoch " in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["val_loss", winner, loser]
    history = json.loads((runs.runs("Seeded")[0] / "metrics.json").read_text())["history"]
    assert f"{history['val_error'][one['epoch'] - 1]:.6g}" in done.stdout.split("baseline  ")[1].splitlines()[0]
    assert lines[5].startswith("baseline (") and " against fast (" in lines[5]
    assert lines[6].startswith("settings: 1 of ") and lines[7] == "  learning_rate  0.02 against 0.1"
    assert lines[8].startswith("training loss by step: ")


def test_seeds_are_folded_into_their_group_unless_asked(runs):
    rows = json.loads(plot(runs, "--runs", "Seeded", "--json").stdout)
    assert [(row["kind"], row["name"], len(row["members"])) for row in rows] == [
        ("run", "baseline", 0), ("run", "fast", 0), ("seeds", "pair", 2),
    ]  # fmt: skip
    group = rows[2]
    members = json.loads(plot(runs, "--runs", "Seeded", "--json", "--unfold").stdout)[2:]
    assert [row["group"] for row in members] == [group["run"]] * 2
    assert [row["run"] for row in members] == group["members"]
    values = [row["best_value"] for row in members]
    assert group["best_value"] == pytest.approx(sum(values) / 2)
    assert group["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert (group["note"], group["state"], group["epochs"]) == ("two of them", "finished", 2)
    table = plot(runs, "--runs", "pair").stdout.splitlines()
    assert len(table) == 2 and f"{group['run']} (2 runs)" in table[1] and "±" in table[1]
    drawn = plot(runs, "pair")
    assert drawn.returncode == 0 and "2 seeds, each at its own best epoch" in drawn.stdout


def test_the_best_come_first(runs):
    rows = json.loads(plot(runs, "--runs", "Seeded", "--best", "--unfold", "--json").stdout)
    values = [row["best_value"] for row in rows]
    assert values == sorted(values) and len(values) == 4
    rows = json.loads(plot(runs, "--runs", "Seeded", "--best", "val_error:max", "--unfold", "--json").stdout)
    values = [row["best_value"] for row in rows]
    assert values == sorted(values, reverse=True) and {row["monitor"] for row in rows} == {"val_error"}
    for row in rows:
        history = json.loads((runs.path / row["path"] / "metrics.json").read_text())["history"]
        assert row["best_value"] == max(history["val_error"])
    head = plot(runs, "--runs", "baseline", "fast", "--best", "val_error").stdout.splitlines()[0]
    assert "best val_error" in head and "val_loss" in head  # the trainer's other metric, at the best epoch


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runs", "--best", "val_zebra"], "write --best val_zebra:min or --best val_zebra:max"),
        (["--runs", "Seeded", "--best", "val_erorr:min"], "none of these 3 rows has it; there are val_error, val_loss"),
        (["--runs", "Seded"], "no run of 'Seded', nor one of that name"),
        (["--runs", "Seded"], "did you mean Seeded?"),
        (["--best", "val_loss", "baseline"], "--best needs --runs"),
    ],
)
def test_what_matches_nothing_is_told(runs, words, told):
    done = plot(runs, *words)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--name", "baseline"], "Give another, such as baseline-2, or go on with that run: --resume baseline"),
        (["--name", "pair"], "of Seeded has that name. Give another, such as pair-2"),
        (["--name", "a b"], "without spaces, such as a-b; --note takes any text"),
        (["--name", "latest"], "that stands for other runs"),
        (["--name", "featurefusion"], "that is a trainer, which stands for its newest run"),
        (["--name", "new", "--dry-run"], "--name and --dry-run don't go together: --dry-run keeps no run"),
        (["--note", "new", "--check"], "--note and --check don't go together"),
    ],
)  # fmt: skip
def test_a_name_that_can_t_be_is_refused_before_anything_runs(runs, words, told):
    before = runs.runs("Seeded")
    done = runs.run("Seeded", "epochs=1", *words)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert runs.runs("Seeded") == before


def test_a_resumed_run_keeps_its_name_or_gets_another(project):
    assert project.run("Seeded", "epochs=1", "--name", "mine", "--note", "short").returncode == 0
    assert project.run("Seeded", "epochs=1").returncode == 0
    done = project.run("Seeded", "epochs=2", "--resume", "mine")
    assert done.returncode == 0, done.stderr
    first, second = project.runs("Seeded")
    content = json.loads((first / "metrics.json").read_text())
    assert (content["name"], content["note"], content["summary"]["epochs"]) == ("mine", "short", 2)
    done = project.run("Seeded", "epochs=2", "--resume", second.name, "--name", "mine")
    assert done.returncode == 2 and "has that name" in done.stderr
    done = project.run("Seeded", "epochs=3", "--resume", "mine", "--name", "ours")
    assert done.returncode == 0, done.stderr
    assert read_label(first) == RunLabel("ours", "short") and read_label(second) == RunLabel()


def test_a_damaged_label_is_none(tmp_path):
    write_label(tmp_path, RunLabel("a", "b"))
    write_label(tmp_path, RunLabel(note="c"))
    assert read_label(tmp_path) == RunLabel("a", "c")
    (tmp_path / "label.json").write_text('{"name": 3')
    assert read_label(tmp_path) == RunLabel()
    (tmp_path / "label.json").write_text('{"name": 3, "note": "x"}')
    assert read_label(tmp_path) == RunLabel(None, "x")
