"""`--help` of a trainer: the values in force, the trainer's own keys first."""

import pytest


@pytest.mark.parametrize("words", [["FeatureFusion", "--help"], ["--help", "FeatureFusion"]])
def test_help_shows_the_values_in_force_and_defaults_that_differ(shared_project, words):
    done = shared_project.run(*words, "dropout=0.25")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    at = {
        line.split(" = ")[0].strip(): number
        for number, line in enumerate(lines)
        if line.startswith("  ") and " = " in line
    }
    assert lines[at["hidden_dim"]] == "  hidden_dim = 8  (int; no default)"  # of config.ini
    assert lines[at["dropout"]] == "  dropout = 0.25  (float; no default)"  # of the command line
    assert lines[at["epochs"]] == "  epochs = 4  (int > 0; default 50)"
    assert lines[at["batch_size"]] == "  batch_size = 32  (int > 0)"
    assert lines[at["epochs"] + 1] == "      Passes over the training data."
    own, shared = (lines.index(title) for title in (
        "its own settings, [FeatureFusionTrainer]:",
        "settings of every trainer, [FeatureFusionTrainer] over [BaseTrainer]:",
    ))  # fmt: skip
    assert own < at["hidden_dim"] < at["dropout"] < shared < at["epochs"]


def test_help_names_the_section_that_trainers_share(project):
    done = project.run("LanguageModel", "--help")
    assert "its own settings, [LanguageModelTrainer] over [Language]:" in done.stdout.splitlines(), done.stdout


def test_help_helps_where_settings_are_wrong(project):
    text = (project.path / "config.ini").read_text().replace("hidden_dim = 8", "hidden_dim = wide", 1)
    (project.path / "config.ini").write_text(text)
    done = project.run("FeatureFusion", "--help", "epohcs=3")
    assert done.returncode == 0, done.stderr
    assert "  hidden_dim = ?  (int; no default)" in done.stdout
    assert (
        "unknown key 'epohcs'; did you mean 'epochs'?" in done.stdout and "hidden_dim = 'wide': must be" in done.stdout
    )
