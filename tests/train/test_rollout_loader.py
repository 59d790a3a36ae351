"""What is made of rollouts: plans, advantages, what is left out, what the loss is divided by."""

import pytest
import torch
from policy_bandit import Bandit

from data.trajectories import trajectory_of
from model.token_losses import importance_sampling, kl_advantages
from train.agents.agent_function import AgentFunctionError, reward_of
from train.agents.comparison import compared
from train.agents.credit import Credit, CreditSettings
from train.agents.played import DONE, FAILED, NO_CALL
from train.agents.policy_loss import PolicyLoss
from train.agents.rollout import Rollout, rollouts_of, state_of
from train.agents.rollout_loader import RolloutLoader, RolloutSettings, ValidationRollouts
from train.agents.watch import signs_of_gaming
from train.errors import TrainingError


class Said:
    version = "v1"

    def __init__(self, length: int, finish: str = "stop", prompt: int = 3) -> None:
        self.prompt_ids, self.token_ids = tuple(range(prompt)), tuple(range(10, 10 + length))
        self.logprobs, self.finish = (-0.25,) * length, finish


def rollout(task: int, reward: float | None, *turns: Said, sample: int = 0, outcome: str = DONE, **more) -> Rollout:
    made = Rollout(task, sample, outcome, reward, **more)
    made.take(trajectory_of(turns))
    return made


def loader_of(rollouts: list[Rollout], steps: int = 1, **credit) -> RolloutLoader:
    return RolloutLoader(4, lambda plans: rollouts, RolloutSettings(steps=steps), Credit(CreditSettings(**credit)))


def test_plans_follow_from_seed_and_epoch_and_no_two_rollouts_share_a_seed():
    """D4: a group of n is n different samples; another run with this seed has the same ones."""
    settings = RolloutSettings(group_size=3, tasks_per_epoch=4, seed=5)
    loader = RolloutLoader(10, lambda plans: [], settings, Credit(CreditSettings()))
    loader.set_epoch(2)
    plans = loader.plans()
    assert plans == loader.plans() and len(plans) == 12
    assert len({plan.task for plan in plans}) == 4 and [plan.sample for plan in plans[:3]] == [0, 1, 2]
    seeds = {plan.seed for plan in plans}
    loader.set_epoch(3)
    later = {plan.seed for plan in loader.plans()}
    held_out = {plan.seed for plan in ValidationRollouts(10, 2, lambda plans: [], loader.settings).plans()}
    assert len(seeds | later | held_out) == 12 + 12 + 20
    assert {plan.task for plan in plans} != {plan.task for plan in loader.plans()}


def test_rollouts_that_were_cut_off_are_in_no_denominator_and_in_the_numbers():
    """E4, by hand: lengths 10, 10, 10, 30, the last one cut off: 30 tokens divide, not 60."""
    rollouts = [rollout(0, reward, Said(10), sample=n) for n, reward in enumerate((1.0, 0.0, 0.0))]
    rollouts.append(rollout(0, 0.0, Said(30, finish="length"), sample=3))
    (batch,) = loader_of(rollouts, train_cut_off=False)
    assert batch.total_weight == 30 and batch.rollouts == 3
    loss = importance_sampling(batch.old_logprobs, batch.old_logprobs, batch.advantages) / batch.total_weight
    assert loss.item() == pytest.approx(-(10 * 0.75 - 10 * 0.25 - 10 * 0.25) / 30)
    assert batch.numbers["length"] == (15.0, 4) and batch.numbers["cut_off"] == (0.25, 4)
    (whole,) = loader_of(rollouts)
    assert whole.total_weight == 60 and whole.rollouts == 4
    loss = importance_sampling(whole.old_logprobs, whole.old_logprobs, whole.advantages) / whole.total_weight
    assert loss.item() == pytest.approx(-(10 * 0.75 - 50 * 0.25) / 60)
    (even,) = loader_of(rollouts, average="rollouts")
    loss = importance_sampling(even.old_logprobs, even.old_logprobs, even.advantages) / even.total_weight
    assert even.total_weight == pytest.approx(4) and loss.item() == pytest.approx(0, abs=1e-7)


def test_a_rollout_is_cut_off_by_any_of_its_answers_and_an_answer_at_the_limit_that_ended_is_not():
    several = rollout(0, 1.0, Said(2), Said(2, finish="length", prompt=4))
    assert several.cut_off == 1 and len(several.rows) == 2 and several.splits == 1
    assert rollout(0, 1.0, Said(30)).cut_off == 0


def test_all_cut_off_or_all_alike_gives_batches_without_a_step():
    cut = [rollout(0, float(n), Said(3, finish="length"), sample=n) for n in range(2)]
    batches = list(loader_of(cut, train_cut_off=False, steps=2))
    assert [batch.rows for batch in batches] == [None, None] and batches[0].numbers["flat_groups"] == (0.0, 1.0)
    alike = [rollout(task, 0.35, Said(3), sample=n) for task in range(3) for n in range(2)]
    (batch,) = loader_of(alike)
    assert batch.rows is None and batch.numbers["flat_groups"] == (1.0, 3.0)
    assert batch.numbers["reward"] == (pytest.approx(0.35), 6)


def test_tasks_of_one_reward_are_left_out_and_counted():
    mixed = [rollout(0, 0.5, Said(3), sample=n) for n in range(2)] + [
        rollout(1, 0.0, Said(5)),
        rollout(1, 1.0, Said(7)),
    ]
    (batch,) = loader_of(mixed)
    assert batch.total_weight == 12 and batch.numbers["flat_groups"] == (0.5, 2.0)
    assert sorted(set(batch.advantages.tolist())) == [-0.5, 0.5]


def test_rollouts_without_reward_are_no_part_of_their_group():
    some = [
        rollout(0, 1.0, Said(2)),
        rollout(0, 0.0, Said(2)),
        rollout(0, None, Said(2), outcome=FAILED, told="x.py:1"),
    ]
    (batch,) = loader_of(some)
    assert sorted(set(batch.advantages.tolist())) == [-0.5, 0.5] and batch.total_weight == 4
    assert batch.numbers["failed"] == (pytest.approx(1 / 3), 3)
    silent = rollout(0, 1.0)
    assert silent.outcome == NO_CALL
    with pytest.raises(TrainingError, match=r"(?s)epoch 1: no rollout can be learned from.*never asked the model"):
        list(loader_of([silent]))


def test_the_penalty_is_that_of_kl_advantages_over_the_epoch():
    some = [rollout(0, 0.5, Said(3)), rollout(0, 0.5, Said(2))]
    reference = [torch.full((6,), -0.5), torch.full((5,), -1.0)]
    credit = Credit(CreditSettings(kl_weight=0.1), lambda rows: reference)
    (batch,) = RolloutLoader(4, lambda plans: some, RolloutSettings(), credit)
    wanted = kl_advantages(torch.full((5,), -0.25), torch.tensor([-0.5] * 3 + [-1.0] * 2), 0.1) * 5 / 4
    assert sorted(batch.advantages.tolist()) == pytest.approx(sorted(wanted.tolist()))
    assert batch.numbers["kl"] == (pytest.approx((3 * 0.25 + 2 * 0.75) / 5), 5)
    assert batch.total_weight == 5, "tasks of one reward are kept, since the penalty teaches"


def test_an_epoch_goes_on_with_the_rollouts_of_its_state_and_the_next_one_makes_its_own():
    calls = []

    def gather(plans):
        calls.append(plans)
        return [rollout(plan.task, float(plan.sample % 2), Said(2 + plan.task), sample=plan.sample,
                        numbers={"guesses": 2.0}, told="") for plan in plans]  # fmt: skip

    def loader():
        settings = RolloutSettings(group_size=2, steps=3, seed=1)
        return RolloutLoader(4, gather, settings, Credit(CreditSettings(group_size=2)))

    first = loader()
    first.set_epoch(4)
    steps = iter(first)
    next(steps)
    state = first.state_dict()
    rest = list(steps)
    assert first.state_dict(inside=False) == {} and first.epoch == 5
    second = loader()
    second.load_state_dict(state)
    second.set_epoch(4)
    again = list(second)
    assert len(calls) == 1 and len(again) == 3
    for one, other in zip(rest, again[1:], strict=True):
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.advantages, other.advantages)
        assert torch.equal(one.old_logprobs, other.old_logprobs)
    assert [batch.fresh for batch in again] == [len(again[0].targets), 0, 0]
    list(second)
    assert len(calls) == 2


# Tasks that always fail, never do, or do at times.
MIXED = [(0.0, 0.0)] * 18 + [(1.0, 1.0)] * 18 + [(0.0, 1.0)] * 4


def test_tasks_of_one_reward_are_replaced_until_the_batch_is_full():
    """Of 40 tasks the 4 that can differ are found, in rounds that draw as many as are missing."""
    bandit = Bandit(MIXED)
    loader = bandit.loader(group_size=8, tasks_per_epoch=2, sampling_rounds=50)
    (batch,) = loader
    groups = loader.credit.groups(loader.rollouts)
    varied = [group for group in groups if not loader.credit.is_flat(group)]
    assert len(varied) == 2 and all(each.task >= 36 for group in varied for each in group)
    assert batch.rollouts == 16 and batch.total_weight == 16 and set(batch.tokens.tolist()) <= {36, 37, 38, 39}
    rounds = batch.numbers["sampling_rounds"][0]
    assert rounds > 2 and batch.numbers["flat_groups"] == (1 - 2 / len(groups), len(groups))
    assert bandit.made == 8 * len(groups) <= 16 + 8 * 2 * (rounds - 1)
    assert batch.numbers["reward"][1] == bandit.made, "what is told is told of all rollouts"


def test_rounds_end_and_a_task_that_is_drawn_again_is_another_group_with_other_seeds():
    plans = []

    def gather(some):
        plans.append(list(some))
        return [rollout(plan.task, 0.5, Said(2), sample=plan.sample) for plan in some]

    settings = RolloutSettings(group_size=3, sampling_rounds=4)
    loader = RolloutLoader(2, gather, settings, Credit(CreditSettings(group_size=3, skip_flat=True)))
    (batch,) = loader
    assert [len(each) for each in plans] == [6, 6, 6, 6] and batch.rows is None
    assert batch.numbers["flat_groups"] == (1.0, 8.0) and batch.numbers["sampling_rounds"] == (4, 1)
    every = [each for some in plans for each in some]
    assert len({each.seed for each in every}) == 24
    assert sorted(each.sample for each in every if each.task == 0) == list(range(12))


def test_a_round_that_is_full_is_the_only_one():
    bandit = Bandit([(0.0, 1.0)] * 4)
    (batch,) = bandit.loader(group_size=16, sampling_rounds=4)
    assert batch.numbers["sampling_rounds"] == (1, 1) and bandit.made == 64


def test_with_dynamic_sampling_fewer_steps_are_needed():
    """Steps of full batches: with each of 5 seeds the tasks that can be learned are better after as many steps."""
    for seed in range(5):
        ends = []
        for rounds in (1, 4):
            bandit = Bandit(MIXED)
            loader = bandit.loader(group_size=8, tasks_per_epoch=4, sampling_rounds=rounds, seed=seed)
            bandit.train(loader, 20, rate=2.0)
            ends.append(float(bandit.probabilities()[36:, 1].mean()))
        assert ends[1] > ends[0] + 0.03, f"seed {seed}: {ends}"


def test_groups_of_one_reward_are_skipped_with_a_penalty_on_the_divergence_too():
    some = [rollout(0, 0.5, Said(2), sample=n) for n in range(2)] + [rollout(1, n, Said(2), sample=n) for n in range(2)]
    for skip_flat, count in ((True, 2), (False, 4)):
        credit = Credit(
            CreditSettings(kl_weight=0.1, skip_flat=skip_flat),
            lambda rows: [torch.full((len(row.ids),), -1.0) for row in rows],
        )
        (batch,) = RolloutLoader(4, lambda plans: some, RolloutSettings(), credit)
        assert batch.rollouts == count


@pytest.mark.parametrize("settings", [
    {"sampling_rounds": 4}, {"curriculum": "success"}, {"max_steps_off_policy": 4},
    {"sampling_rounds": 3, "curriculum": "success", "max_steps_off_policy": 3},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_loader_goes_on_from_its_state_to_the_same_bits(settings, cut):
    """Cut off in the third epoch, before its rollouts, between its steps, after the last, or between two epochs."""

    def begun() -> tuple[Bandit, RolloutLoader]:
        bandit = Bandit(MIXED)
        return bandit, bandit.loader(group_size=4, tasks_per_epoch=8, steps=2, seed=4, **settings)

    def go(bandit: Bandit, loader: RolloutLoader, epochs: range, steps_at_the_end: int = 2, skip: int = 0) -> None:
        for epoch in epochs:
            loader.set_epoch(epoch)
            for place, batch in enumerate(loader):
                if place >= (skip if epoch == epochs[0] else 0):
                    change = 2 * bandit.gradient(batch, PolicyLoss("ppo"))
                    with torch.no_grad():
                        bandit.logits -= change
                if epoch == epochs[-1] and place + 1 == steps_at_the_end < 2:
                    break

    whole, loader = begun()
    go(whole, loader, range(5))
    bandit, loader = begun()
    go(bandit, loader, range(2))
    if cut in (1, 2):
        go(bandit, loader, range(2, 3), cut)
    if cut == 3:
        go(bandit, loader, range(2, 3))
    state = loader.state_dict(inside=cut in (1, 2))
    other, again = begun()
    other.logits = bandit.logits.detach().clone().requires_grad_()
    again.load_state_dict(state)
    go(other, again, range(3 if cut == 3 else 2, 5), skip=cut if cut < 3 else 0)
    assert torch.equal(other.logits, whole.logits)
    assert again.rollouts[0].tokens == loader.rollouts[0].tokens


def test_a_state_holds_all_of_a_rollout():
    made = [
        rollout(1, 0.5, Said(3), Said(2, prompt=4), sample=2, numbers={"guesses": 3.0}, remarks=["odd"]),
        rollout(2, None, outcome=FAILED, told="agent.py:3 in play: KeyError"),
    ]
    back = rollouts_of(state_of(made))
    assert state_of(back).keys() == state_of(made).keys()
    for one, other in zip(made, back, strict=True):
        assert {**vars(one), "rows": 0} == {**vars(other), "rows": 0} and len(one.rows) == len(other.rows)
        for row, kept in zip(one.rows, other.rows, strict=True):
            assert row.versions == kept.versions and torch.equal(row.ids, kept.ids)
            assert torch.equal(row.sampled, kept.sampled) and torch.equal(row.logprobs, kept.logprobs)
    assert rollouts_of(state_of([])) == []


def test_rewards_are_numbers_or_dicts_with_one():
    assert reward_of(True) == (1.0, {}) and reward_of(torch.tensor(0.5)) == (0.5, {})
    assert reward_of({"reward": 2, "guesses": 3, "success": False}) == (2.0, {"guesses": 3.0, "success": 0.0})
    for returned, told in (
        (None, "what it returned is None"),
        ({"score": 1}, "a dict without 'reward' (it has score)"),
        ("1.0", "what it returned is '1.0' (str): it must be a number"),
        ({"reward": 1, "guesses": float("inf")}, "'guesses' of what it returned is inf: it must be a finite number"),
        ({"reward": 1, "a\ud800": 2}, "a number with the name 'a\\ud800': names are 1 to 60 printable characters"),
        ({"reward": 1, "": 2}, "a number with the name '': names are"),
        ({"reward": 1, "x" * 61: 2}, "xxx'...: names are"),
        ({"reward": 1e300}, "'reward' of what it returned is 1e+300: it must lie between -1e+30 and 1e+30"),
        (torch.zeros(2), "it must be a number"),
    ):
        with pytest.raises(AgentFunctionError) as error:
            reward_of(returned)
        assert told in str(error.value)


def test_before_and_after_are_compared_task_by_task():
    before = [rollout(task, 0.1 * task, Said(4)) for task in range(5)]
    after = [rollout(task, 0.1 * task + 0.2, Said(2)) for task in range(5)]
    found = compared(before, after, success=0.5)
    assert found["before"]["reward"] == pytest.approx(0.2) and found["after"]["success"] == pytest.approx(0.4)
    change = found["change"]
    assert change["reward"] == {key: pytest.approx(0.2) for key in ("difference", "low", "high")} | {"tasks": 5}
    assert change["length"]["difference"] == -2.0


def test_signs_that_a_reward_is_gamed():
    quiet = {"val_reward": [0.1, 0.5], "val_length": [20, 25], "val_entropy": [1.0, 0.6]}
    assert signs_of_gaming(quiet) == {}
    assert set(signs_of_gaming(quiet | {"val_length": [20, 61]})) == {"length"}
    assert set(signs_of_gaming(quiet | {"val_length": [20, 5], "val_entropy": [1.0, 0.05]})) == {"length", "entropy"}
    assert signs_of_gaming({"val_reward": [0.5, 0.4], "val_length": [20, 100], "val_entropy": [1.0, 0.01]}) == {}


def test_numbers_of_the_agent_do_not_take_the_place_of_others():
    some = [rollout(0, 1.0, Said(2), numbers={"turns": 7.0, "loss": 3.0, "guesses": 2.0}), rollout(0, 0.0, Said(2))]
    (batch,) = loader_of(some)
    assert batch.numbers["turns"] == (1.0, 2) and batch.numbers["agent_turns"] == (7.0, 1)
    assert batch.numbers["agent_loss"] == (3.0, 1) and batch.numbers["guesses"] == (2.0, 1)


def test_validation_batches_have_their_own_rewards_and_the_numbers_of_all():
    rollouts = [rollout(task, float(task < 32), Said(2)) for task in range(40)] + [rollout(40, None, outcome=FAILED)]
    loader = ValidationRollouts(41, 1, lambda plans: rollouts, RolloutSettings())
    first, second = loader
    assert len(loader) == 2 and (first.reward, second.reward) == (1.0, 0.0)
    assert (first.rollouts, second.rollouts) == (32, 8)
    assert first.numbers["reward"] == (pytest.approx(32 / 40), 40) and second.numbers == {}
