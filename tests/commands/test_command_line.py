"""The command line itself: names, lists, settings, and errors found before torch is imported."""

import subprocess
import sys

import pytest


def test_list_names_trainers_with_description_and_section(shared_project):
    done = shared_project.run("--list")
    assert done.returncode == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("FeatureFusionTrainer"))
    assert line.split(maxsplit=2)[1:] == ["[FeatureFusionTrainer]", "Fuses features (sample)."]


@pytest.mark.parametrize(
    "words", [["--list"], ["--help"], ["FeatureFusion", "--help"], ["FeatureFusion", "epohcs=3"], ["Nothing"], []]
)
def test_nothing_heavy_is_imported_before_a_run(shared_project, words):
    """torch alone takes over a second; --list and --help must answer at once, and so must a typing error."""
    code = (
        "import sys; from commands.command_line import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules); print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=shared_project.path, capture_output=True, text=True, timeout=60
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def test_help_of_a_trainer_shows_its_settings(shared_project):
    done = shared_project.run("FeatureFusion", "--help")
    assert done.returncode == 0
    assert "hidden_dim" in done.stdout and "Passes over the training data." in done.stdout
    assert "exit codes: 0 done, 2 usage or config" in done.stdout


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["FeatureFuson"], ["unknown trainer 'FeatureFuson'; did you mean FeatureFusionTrainer", "--list"]),
        (["epochs=2"], ["'epochs=2' is a setting; the name of a trainer comes before it", "--list"]),
        ([], ["name a trainer"]),
        (["FeatureFusion", "epohcs=3"], ["command line: unknown key 'epohcs'; did you mean 'epochs'?"]),
        (["FeatureFusion", "epochs=many"], ["command line", "epochs", "'many'"]),
        (["FeatureFusion", "epochs=0"], ["command line", "epochs", "greater than 0"]),
        (["FeatureFusion", "epochs"], ["epochs", "key=value"]),
        (["FeatureFusion", "--config", "none.ini"], ["none.ini"]),
        (["FeatureFusion", "device=cuda:99"], ["device = 'cuda:99' can't be used here"]),
        (["FeatureFusion", "device=gpu"], ["device = 'gpu' is no device; did you mean 'cuda'? There are auto, cpu,"]),
        (["FeatureFusion", "device=cdua:1"], ["did you mean 'cuda:1'?"]),
        (["FeatureFusion", "--bogus"], ["error: there is no option --bogus. `python train.py --help` shows all."]),
        (["--lst"], ["error: there is no option --lst; did you mean --list? `"]),
        (["FeatureFusion", "--dryrun"], ["did you mean --dry-run?"]),
        (["FeatureFusion", "--epochs", "5"], ["settings have no dashes: write epochs=5. `"]),
        (["FeatureFusion", "--resume", "--epochs=5"], ["write epochs=5. `"]),
        (["FeatureFusion", "--batch-size", "5"], ["write batch_size=5. `"]),
        (["FeatureFusion", "--hidden-dim=4"], ["write hidden_dim=4. `"]),
        (["FeatureFusion", "--lr", "0.1"], ["write learning_rate=0.1. `"]),
        (["FeatureFusion", "--predict", "x.csv"], ["--predict latest --out x.csv"]),
    ],
)
def test_a_mistake_exits_with_2_and_says_what_to_do(shared_project, words, texts):
    done = shared_project.run(*words)
    assert done.returncode == 2, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not shared_project.runs("FeatureFusion")


def test_all_mistakes_of_the_file_are_told_at_once(project):
    project.append("config.ini", "[Nonsense]\na = 1\n[FaultyTraine]\n")
    text = (project.path / "config.ini").read_text().replace("hidden_dim = 8", "hiden_dim = 8")
    (project.path / "config.ini").write_text(text)
    done = project.run("OwnLoop")
    assert done.returncode == 2
    for part in ("unknown key 'hiden_dim'; did you mean 'hidden_dim'?", "[Nonsense]", "FaultyTrainer"):
        assert part in done.stderr
    line = text.splitlines().index("hiden_dim = 8") + 1
    assert f"config.ini:{line} [FeatureFusionTrainer] unknown key" in done.stderr


def test_two_trainers_of_one_name_are_an_error_that_names_both_files(project):
    source = (project.path / "train/feature_fusion_trainer.py").read_text()
    (project.path / "train/copied_trainer.py").write_text(source)
    done = project.run("--list")
    assert done.returncode == 2
    assert "two trainers have the name FeatureFusionTrainer" in done.stderr
    assert "train/copied_trainer.py:22" in done.stderr and "train/feature_fusion_trainer.py:22" in done.stderr


def test_a_trainer_file_with_a_syntax_error_does_not_hide_the_others(project):
    (project.path / "train/half_written_trainer.py").write_text("class HalfWrittenTrainer(BaseTrainer:\n")
    done = project.run("--list")
    assert done.returncode == 0
    assert "FeatureFusionTrainer" in done.stdout and "half_written_trainer.py: SyntaxError" in done.stdout
    done = project.run("HalfWritten")
    assert done.returncode == 2 and "did you mean" not in done.stderr
    assert "train/half_written_trainer.py can't be read, so it has no trainers: SyntaxError: " in done.stderr


def test_a_trainer_whose_file_is_not_called_so_is_found_out(project):
    (project.path / "train/feature_fusion_trainer.py").rename(project.path / "train/fusion.py")
    done = project.run("FeatureFusion")
    assert done.returncode == 2
    assert (
        "train/fusion.py has a class FeatureFusionTrainer, but trainers are looked for in train/*_trainer.py: rename "
        "the file to fusion_trainer.py\n"
    ) in done.stderr


def test_a_trainer_without_its_config_class_is_told_so(project):
    config = project.path / "config/feature_fusion_trainer_config.py"
    config.write_text(config.read_text().replace("FeatureFusionTrainerConfig", "FusionTrainerConfig"))
    done = project.run("FeatureFusion")
    assert done.returncode == 2
    assert (
        "[FeatureFusionTrainer] unknown section: train/feature_fusion_trainer.py is there, but config/*_config.py "
        "has no dataclass FeatureFusionTrainerConfig"
    ) in done.stderr


def test_a_trainer_from_elsewhere_joins_by_one_line(project):
    (project.path / "elsewhere.py").write_text(
        (project.path / "train/feature_fusion_trainer.py").read_text().replace("FeatureFusionTrainer(", "AwayTrainer(")
    )
    project.append("train/__init__.py", 'TRAINER_REGISTRY["AwayTrainer"] = "elsewhere:AwayTrainer"\n')
    done = project.run("away", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert project.runs("Away")


def test_a_trainer_over_a_trainer_is_refused(project):
    (project.path / "train/deep_trainer.py").write_text(
        "from train.feature_fusion_trainer import FeatureFusionTrainer\n\n\n"
        "class DeepTrainer(FeatureFusionTrainer):\n    pass\n"
    )
    done = project.run("Deep")
    assert done.returncode == 2
    assert "DeepTrainer derives from FeatureFusionTrainer, which is a trainer itself" in done.stderr


def test_a_trainer_without_a_hook_is_refused(project):
    (project.path / "train/bare_trainer.py").write_text(
        "from train.base_trainer import BaseTrainer\n\n\nclass BareTrainer(BaseTrainer):\n    pass\n"
    )
    done = project.run("Bare")
    assert done.returncode == 2
    assert "BareTrainer is abstract: it must define compute_loss(batch) or _forward_batch(batch)" in done.stderr


def test_resume_before_a_setting_takes_the_latest_run(shared_project):
    done = shared_project.run("Faulty", "--resume", "epochs=3")
    assert done.returncode == 2
    assert "no run 'latest' to resume" in done.stderr


def test_an_old_torch_is_told(project):
    code = (
        "import importlib.metadata as m, sys; real = m.version;"
        "m.version = lambda name: '2.9.1' if name == 'torch' else real(name);"
        "from commands.command_line import main; sys.exit(main(['FeatureFusion']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "torch 2.9.1 is too old: its torch.load has known security holes. Install torch 2.10" in done.stderr
