"""`--find-lr`: the rule on curves, the test on trainers, and the command line."""

import json
import math
import re

import pytest
import torch
import torch.nn.functional as F
from step_trainers import DoubleTrainer, HookTrainer, SpellingTrainer, probed_run, snapshot
from torch import nn

from commands.find_lr import judged, range_test, reference_rate, report_lines
from commands.probe_steps import build_for_probing, peak_rates
from storage.errors import ResumeError
from storage.run_folder import RunFolder
from train.base_trainer import BaseTrainer, RunOptions

RATES = [10 ** (-7 + number / 20) for number in range(161)]


@pytest.fixture(autouse=True)
def options_as_before():
    before = BaseTrainer.options
    yield
    BaseTrainer.options = before


@pytest.fixture(scope="module")
def found(shared_project):
    done = shared_project.run("FeatureFusion", "--find-lr", "dropout=0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = shared_project.runs("FeatureFusion")
    return done, run


def test_the_command_suggests_a_line_for_config_ini(found, shared_project):
    done, run = found
    lines = done.stdout.splitlines()
    assert "for [FeatureFusionTrainer] in config.ini:" in lines
    (line,) = [line for line in lines if line.startswith("learning_rate = ")]
    rate, now = re.fullmatch(r"learning_rate = (\S+)   # now (\S+)", line).groups()
    assert now == "0.01" and 1e-3 < float(rate) < 0.3
    assert any(re.fullmatch(r"the loss diverged at \S+", line) for line in lines)
    assert lines[-1] == f"curve: {run / 'find_lr' / 'find_lr.png'}"
    assert done.stderr == ""


def test_the_command_writes_a_curve_and_a_picture_and_nothing_else(found, shared_project):
    done, run = found
    assert {path.name for path in run.iterdir()} == {
        "config.ini",
        "environment.json",
        "find_lr",
        "segments.json",
        "train.log",
    }
    saved = json.loads((run / "find_lr" / "find_lr.json").read_text())
    assert saved["trainer"] == "FeatureFusionTrainer"
    assert len(saved["rates"]) == len(saved["losses"]) == len(saved["smoothed"]) > 100
    assert saved["rates"][0] == pytest.approx(1e-7)
    assert f"learning_rate = {saved['valley']:.2g}   #" in done.stdout
    assert (run / "find_lr" / "find_lr.png").read_bytes()[:4] == b"\x89PNG"
    assert "learning_rate = " in (run / "train.log").read_text()
    assert not (run.parent.parent / "model.safetensors").exists()


def test_there_is_nothing_to_resume_in_it(found, shared_project):
    with pytest.raises(ResumeError, match="no run 'latest' to resume"):
        RunFolder.find(shared_project.path / "artifacts", "FeatureFusion", "latest")


@pytest.mark.slow
def test_the_table_of_runs_leaves_it_out(found, shared_project):
    assert found[1].name not in shared_project.run("--runs", script="plot.py").stdout


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["OwnLoop", "ModelAutoEncoder"])
def test_other_trainers(shared_project, trainer):
    done = shared_project.run(trainer, "--find-lr")
    assert done.returncode == 0, done.stderr
    assert ("no suggestion: the curve is flat" in done.stdout) == (trainer == "ModelAutoEncoder")


# -------------------------------------------------------------------------------------------------- the rule on curves


def fall(middle: float, width: float, noise: float = 0.0) -> list[float]:
    """A loss that falls from 2 to 1 around a rate (log10) and rises again three decades later."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(len(RATES), generator=generator).tolist()
    logs = [math.log10(rate) for rate in RATES]
    return [
        2 - 1 / (1 + math.exp(-4 * (x - middle) / width)) + 50 * max(0.0, x - middle - 2.5) ** 2 + noise * draw
        for x, draw in zip(logs, draws, strict=True)
    ]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_middle_of_the_fall_is_suggested(noise):
    test = judged(RATES, fall(-3.0, 1.0, noise), diverged=None)
    assert math.log10(test.valley) == pytest.approx(-3.0, abs=0.3)
    assert math.log10(test.steepest) == pytest.approx(-3.0, abs=0.6)
    assert test.reason == ""


def test_the_loss_has_diverged_where_it_is_back_at_its_start():
    test = judged(RATES, fall(-3.0, 1.0), diverged=10.0)
    assert math.log10(test.diverged) == pytest.approx(-3.0 + 2.5 + 0.14, abs=0.06)  # 50 * 0.14 ** 2 = 1
    assert judged(RATES[:110], fall(-3.0, 1.0)[:110], diverged=RATES[110]).diverged == RATES[110]
    assert judged(RATES[:110], fall(-3.0, 1.0)[:110], diverged=None).diverged is None


def test_noise_before_the_fall_does_not_move_it():
    """fastai's longest decreasing subsequence would count it as part of the fall."""
    early = [loss + (0.02 * math.sin(number) if number < 60 else 0) for number, loss in enumerate(fall(-2.0, 1.0))]
    assert math.log10(judged(RATES, early, None).valley) == pytest.approx(-2.0, abs=0.1)


def test_a_flat_curve_gets_no_suggestion():
    flat = judged(RATES, [2.0 - 0.00005 * number for number in range(161)], diverged=None)
    assert flat.valley is None and flat.steepest is None
    assert re.fullmatch(
        r"the curve is flat: the loss falls by 0.38 % at most; a suggestion needs 2 %, and 3 times its noise \(.*\)",
        flat.reason,
    )


def test_a_fall_that_is_no_more_than_noise_gets_no_suggestion():
    draws = torch.randn(161, generator=torch.Generator().manual_seed(3)).tolist()
    noisy = judged(RATES, [2.0 + draw for draw in draws], diverged=None)
    assert noisy.valley is None and "times its noise" in noisy.reason


def test_a_loss_that_only_rises_gets_no_suggestion():
    rising = judged(RATES, [2.0 + 1e-6 * 1.1**number for number in range(161)], diverged=10.0)
    assert rising.valley is None and rising.reason.startswith("the curve is flat: the loss falls by 2.5e-05 % ")


def test_a_loss_that_explodes_at_once_gets_no_suggestion():
    test = judged(RATES[:5], [2.0] * 5, diverged=RATES[5])
    assert test.reason == "the loss exploded after 5 steps, at the rate 1.8e-07"


# ------------------------------------------------------------------------------------------------- the test on trainers


def test_it_leaves_the_trainer_as_it_was(tmp_path):
    run = probed_run(DoubleTrainer, tmp_path)
    before, state = snapshot(run.trainer), torch.get_rng_state()
    rates = [group["lr"] for group in run.optimizer.param_groups]
    range_test(run, 1e-5, 1e-2)
    after = snapshot(run.trainer)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(state, torch.get_rng_state())
    assert [group["lr"] for group in run.optimizer.param_groups] == rates
    assert not run.optimizer.state and len(run.meter) == 0
    assert not (tmp_path / "models").exists()


def noted_rates(run) -> list[list[float]]:
    """Note the rates of the groups at each step of the optimizer."""
    rates, step = [], run.step.step

    def noting(step_input):
        rates.append([group["lr"] for group in run.optimizer.param_groups])
        step(step_input)

    run.step.step = noting
    return rates


def test_parameter_groups_keep_their_proportion(tmp_path):
    run = probed_run(DoubleTrainer, tmp_path)  # 3e-3, and 2e-2 for the loss's own parameter
    rates = noted_rates(run)
    test = range_test(run, 1e-6, 1e-3)
    assert [pair[0] for pair in rates[: len(test.rates)]] == pytest.approx(test.rates)
    assert all(second / first == pytest.approx(2e-2 / 3e-3) for first, second in rates)


def test_schedules_rest_and_accumulation_holds(tmp_path):
    run = probed_run(SpellingTrainer, tmp_path)  # warm-up by the step, three batches a step
    sizes, step = [], run.step.step
    run.step.step = lambda step_input: (sizes.append(len(step_input)), step(step_input))
    steps = run.scheduler.last_epoch
    test = range_test(run, 1e-5, 1e-2)
    assert run.scheduler.last_epoch == steps
    assert set(sizes) == {3, 2}  # the last step input of an epoch is shorter
    assert test.rates[0] == pytest.approx(1e-5)
    assert reference_rate(run) == run.config.learning_rate == peak_rates(run.optimizer)[0]


def test_a_known_best_rate_is_found(tmp_path):
    """Plain gradient descent on a square: the loss falls fastest at a rate of 1 over its curvature, explodes at 2."""

    def hook(trainer, output, goal):
        return 50.0 * trainer.point.weight.square().sum()  # curvature 100

    point = nn.Linear(1, 1, bias=False)
    nn.init.constant_(point.weight, 1.0)
    model = nn.Sequential(nn.Linear(4, 2))
    run = probed_run(
        HookTrainer, tmp_path, hook=hook, model=model, attributes={"point": point}, gradient_clip_value=0,
        optimizer=lambda parameters, lr: torch.optim.SGD(point.parameters(), lr=lr),
    )  # fmt: skip
    test = range_test(run)
    assert 1e-4 < test.valley < 0.01
    assert test.diverged is None or test.diverged > 0.02


def test_batches_that_differ_are_brought_to_one_level(tmp_path):
    """The noise between batches, ten times the fall's, is known from the start and taken out."""

    def hook(trainer, output, goal):
        return F.mse_loss(output, goal) + 10 * goal.detach().abs().mean()

    test = range_test(probed_run(HookTrainer, tmp_path, hook=hook, model=nn.Linear(4, 2)), 1e-7, 1e-4)
    assert max(test.losses) - min(test.losses) < 0.01 * test.losses[0]


def test_a_loss_that_becomes_nan_ends_it(tmp_path):
    def hook(trainer, output, goal):
        return F.mse_loss(output, goal) + (1 - output.abs().max()).log() * 0 + (3 - output.abs().max()).sqrt()

    test = range_test(probed_run(HookTrainer, tmp_path, hook=hook, gradient_clip_value=0))
    assert test.diverged is not None and test.diverged < 10
    assert all(map(math.isfinite, test.losses))


def test_an_optimizer_that_ignores_the_setting_is_told(tmp_path):
    run = probed_run(HookTrainer, tmp_path, optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=0.02))
    test = judged(RATES, fall(-3.0, 1.0), diverged=None)
    lines = report_lines(run, test)
    assert (
        "the optimizer does not use learning_rate (0.01): its first group has 0.02, and the rates are those of that "
        "group"
    ) in lines
    assert lines[-1] == f"learning_rate = {test.valley:.2g}"


def test_no_suggestion_is_said_and_no_line_is_given(tmp_path):
    run = probed_run(HookTrainer, tmp_path)
    lines = report_lines(run, judged(RATES, [2.0] * 161, diverged=None))
    assert lines[1] == "the loss never diverged"
    assert lines[2].startswith("no suggestion: the curve is flat") and len(lines) == 3


def test_probing_with_a_folder_asks_for_one():
    class Noting:
        def __init__(self):
            self.options, self.config = BaseTrainer.options, type("Config", (), {})()
            self.run_context = self

    assert build_for_probing(Noting, keep_folder=True).options == RunOptions(dry_run=False)
    assert build_for_probing(Noting).options == RunOptions(dry_run=True)
