"""Token losses against slow formulas in float64, with gradients; distances of policies; groups of rollouts."""

import math

import pytest
import torch

from model.token_losses import (
    LOSS_INPUTS,
    centred_advantages,
    count_rollouts,
    forward_kl_top_k,
    group_advantages,
    has_effect,
    kl_advantages,
    kl_divergence,
    kl_k1,
    kl_k2,
    kl_k3,
    require_loss,
    token_loss,
)

TOKENS = 40


def drawn(seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities whose ratios lie far on both sides of 1, and advantages of both signs, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(TOKENS, generator=generator, dtype=torch.float64)
    new = old + torch.randn(TOKENS, generator=generator, dtype=torch.float64)
    advantages = torch.randn(TOKENS, generator=generator, dtype=torch.float64)
    advantages[::5] = 0
    return new.requires_grad_(), {"logprobs": old, "advantages": advantages, "weights": advantages.clone()}


def one_by_one(loss: str, new: torch.Tensor, inputs: dict[str, torch.Tensor], **config: float) -> torch.Tensor:
    """PROTOCOL's table, token by token; min and clip are torch's, whose gradients nobody doubts."""
    total = torch.zeros((), dtype=torch.float64)
    for logp, old, adv in zip(new, inputs["logprobs"], inputs["advantages"], strict=True):
        ratio = (logp - old).exp()
        if loss == "cross_entropy":
            total = total - adv * logp
        elif loss == "importance_sampling":
            total = total - ratio * adv
        elif loss == "ppo":
            low, high = config["clip_low_threshold"], config["clip_high_threshold"]
            total = total - torch.min(ratio * adv, ratio.clamp(low, high) * adv)
        elif loss == "cispo":
            clipped = ratio.clamp(config["clip_low_threshold"], config["clip_high_threshold"]).detach()
            total = total - clipped * logp * adv
        elif loss == "dro":
            total = total - (logp * adv - 0.5 * config["beta"] * (logp - old) ** 2)
    return total


@pytest.mark.parametrize(
    ("loss", "config"),
    [
        ("cross_entropy", {}),
        ("importance_sampling", {}),
        ("ppo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
        ("ppo", {"clip_low_threshold": 0.5, "clip_high_threshold": 3.0}),
        ("cispo", {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}),
        ("cispo", {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}),
        ("dro", {"beta": 0.05}),
        ("dro", {"beta": 2.0}),
    ],
)
def test_losses_and_gradients_are_those_of_the_formulas(loss, config):
    new, inputs = drawn()
    wanted = one_by_one(loss, new, inputs, **config)
    (gradient,) = torch.autograd.grad(wanted, new)
    found = token_loss(loss, new, inputs, config)
    (found_gradient,) = torch.autograd.grad(found, new)
    assert found.dim() == 0 and abs(found - wanted) < 1e-12
    assert (found_gradient - gradient).abs().max() < 1e-12
    assert gradient.abs().max() > 0.1


def test_defaults_are_the_protocols():
    new, inputs = drawn()
    for loss, config in {
        "ppo": {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
        "cispo": {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
        "dro": {"beta": 0.05},
    }.items():
        assert token_loss(loss, new, inputs) == token_loss(loss, new, inputs, config)
        assert require_loss(loss) == config


def test_cross_entropy_takes_several_targets_and_negative_weights():
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -4.0]], requires_grad=True)
    weights = torch.tensor([[0.75, 0.25], [-1.0, 0.0]])
    loss = token_loss("cross_entropy", logprobs, {"weights": weights})
    assert loss == 0.75 * 1 + 0.25 * 2 - 0.5
    loss.backward()
    assert torch.equal(logprobs.grad, -weights)


@pytest.mark.parametrize("loss", sorted(LOSS_INPUTS))
@pytest.mark.parametrize("unlikely", [-1e4, -torch.inf])
def test_what_counts_for_nothing_counts_for_nothing_whatever_it_is(loss, unlikely):
    if loss == "dro" and unlikely == -torch.inf:
        return  # its distance counts everywhere: the formula's
    new = torch.tensor([-0.5, unlikely, 200.0], requires_grad=True)
    inputs = {
        "logprobs": torch.tensor([-0.7, 0.0, -200.0 if loss != "dro" else 200.0]),
        "advantages": torch.tensor([1.0, 0.0, 0.0]),
        "weights": torch.tensor([1.0, 0.0, 0.0]),
    }
    total = token_loss(loss, new, inputs)
    total.backward()
    assert total.isfinite() and new.grad.isfinite().all()
    if loss != "dro":
        assert torch.equal(new.grad[1:], torch.zeros(2))
        assert has_effect(loss, inputs).tolist() == [True, False, False]
    else:
        assert has_effect(loss, inputs).all()


def test_a_ratio_that_overflows_is_clipped_without_nan():
    new = torch.tensor([0.0, -300.0], requires_grad=True)
    inputs = {"logprobs": torch.tensor([-300.0, 0.0]), "advantages": torch.tensor([1.0, -1.0])}
    loss = token_loss("ppo", new, inputs)
    loss.backward()
    assert abs(loss.item() - (-1.2 + 0.8)) < 1e-6 and torch.equal(new.grad, torch.zeros(2))


def test_wrong_names_values_and_shapes_are_refused():
    new, inputs = drawn()
    with pytest.raises(ValueError, match=r"no loss 'gspo'; there are: cross_entropy, importance_sampling, ppo"):
        token_loss("gspo", new, inputs)
    with pytest.raises(ValueError, match=r"the loss ppo has no setting 'clip_low'; it has: clip_low_threshold, clip_h"):
        token_loss("ppo", new, inputs, {"clip_low": 0.8})
    with pytest.raises(ValueError, match=r"the loss cross_entropy has no setting 'beta'; it has: none"):
        token_loss("cross_entropy", new, inputs, {"beta": 0.8})
    for wrong in (math.nan, math.inf, -1.0, True, "0.8"):
        with pytest.raises(ValueError, match=r"beta of the loss dro is .*; it must be a finite number, 0 or more"):
            token_loss("dro", new, inputs, {"beta": wrong})
    with pytest.raises(ValueError, match=r"clip_low_threshold of the loss ppo is 1.5, above clip_high_threshold 1.2"):
        require_loss("ppo", {"clip_low_threshold": 1.5})
    with pytest.raises(ValueError, match="the loss ppo needs advantages"):
        token_loss("ppo", new, {"logprobs": inputs["logprobs"]})
    with pytest.raises(ValueError, match=r"weights has the shape \(39,\), the targets \(40,\)"):
        token_loss("cross_entropy", new, {"weights": inputs["weights"][1:]})


def test_divergences_of_half_half_from_nine_to_one():
    p, q = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[0.9, 0.1]]).double()
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(0.5108, abs=5e-5)
    assert kl_divergence(q.log(), p.log()).item() == pytest.approx(0.3681, abs=5e-5)
    k3 = kl_k3(p.log()[0], q.log()[0])
    assert k3.tolist() == pytest.approx([0.2122, 0.8094], abs=5e-5)
    assert k3.mean().item() == pytest.approx(0.5108, abs=5e-5)
    assert kl_k1(p.log()[0], q.log()[0]).mean().item() == pytest.approx(0.5108, abs=5e-5)
    assert kl_k2(p.log()[0], q.log()[0]).tolist() == pytest.approx([0.5 * math.log(0.5 / 0.9) ** 2,
                                                                    0.5 * math.log(5) ** 2])  # fmt: skip
    certain = torch.tensor([[0.0, -torch.inf]])
    assert kl_divergence(certain, q.log()).item() == pytest.approx(-math.log(0.9))


def test_k3_is_never_negative_and_exact_near_zero():
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(1000, generator=generator)
    near = old + 1e-4 * torch.randn(1000, generator=generator)
    assert (kl_k3(old, near) >= 0).all() and kl_k3(old, near).max() < 1e-6


def both(vocabulary: int = 30, tokens: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a student and of a teacher, in float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(tokens, vocabulary, generator=generator).double() for _ in range(2))
    return student.requires_grad_(), teacher


def of_likeliest(student: torch.Tensor, teacher: torch.Tensor, k: int) -> torch.Tensor:
    best = teacher.log_softmax(1).topk(k)
    return forward_kl_top_k(student.log_softmax(1).gather(1, best.indices), best.values)


def test_the_divergence_of_the_likeliest_tokens_takes_all_others_as_one():
    half, nine = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert forward_kl_top_k(nine, half).item() == pytest.approx(0.5108, abs=5e-5)
    assert forward_kl_top_k(half, nine).item() == pytest.approx(0.3681, abs=5e-5)
    # of three outcomes two are told: 0.5, 0.3 and the rest 0.2 against 0.6, 0.3 and 0.1
    told = forward_kl_top_k(torch.tensor([[0.6, 0.3]]).log(), torch.tensor([[0.5, 0.3]]).log()).item()
    assert told == pytest.approx(0.5 * math.log(5 / 6) + 0.2 * math.log(2), abs=1e-6)
    student, teacher = both()
    whole = kl_divergence(teacher.log_softmax(1), student.log_softmax(1))
    assert torch.allclose(of_likeliest(student, teacher, 30), whole)
    fewer = [of_likeliest(student, teacher, k) for k in (1, 5, 20)]
    assert (fewer[0] <= fewer[1] + 1e-12).all() and (fewer[1] <= fewer[2] + 1e-12).all()
    assert (fewer[2] <= whole + 1e-12).all() and (fewer[0] >= 0).all()
    assert of_likeliest(teacher, teacher, 5).abs().max() < 1e-12


def test_the_gradient_of_the_likeliest_tokens_is_that_of_the_lumped_distributions():
    student, teacher = both()
    (gradient,) = torch.autograd.grad(of_likeliest(student, teacher, 4).sum(), student)
    p, q = teacher.softmax(1), student.softmax(1)
    best = p.topk(4).indices
    chosen = torch.zeros_like(p).scatter(1, best, 1.0)
    p_rest, q_rest = ((x * (1 - chosen)).sum(1, keepdim=True) for x in (p, q))
    assert torch.allclose(gradient, q - torch.where(chosen.bool(), p, p_rest * q / q_rest))
    assert gradient.sum(1).abs().max() < 1e-12


def test_a_student_that_gives_the_rest_nothing_is_told_so_and_stays_finite():
    teacher = torch.tensor([[0.6, 0.3]]).log()
    logits = torch.tensor([[30.0, 29.3, 0.0, 0.0]], requires_grad=True)
    loss = forward_kl_top_k(logits.log_softmax(1)[:, :2], teacher)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.item() == pytest.approx(0.1 * math.log(0.1 / 1e-5), abs=0.1) and gradient.isfinite().all()
    assert gradient[0, 2:].max() <= 0 and gradient.abs().max() < 1.1


def test_a_step_with_the_penalty_alone_lowers_the_divergence():
    """The gradient of the penalised advantages, over all samples of a small vocabulary, is that of the divergence."""
    reference = torch.tensor([2.0, 0.5, -1.0, 0.0]).log_softmax(0)
    logits = torch.tensor([0.0, 1.0, 1.0, -1.0], requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    sampled = torch.multinomial(logits.detach().softmax(0), 4000, replacement=True, generator=generator)

    def after(weight: float) -> float:
        logprobs = logits.log_softmax(0)[sampled]
        advantages = kl_advantages(logprobs.detach(), reference[sampled], weight)
        assert abs(advantages.sum()) < 1e-2
        inputs = {"logprobs": logprobs.detach(), "advantages": advantages}
        (gradient,) = torch.autograd.grad(token_loss("importance_sampling", logprobs, inputs) / 4000, logits)
        return kl_divergence((logits.detach() - gradient).log_softmax(0)[None], reference[None]).item()

    exact = kl_divergence(logits.log_softmax(0)[None], reference[None])
    (wanted,) = torch.autograd.grad(exact.sum(), logits)
    stepped = kl_divergence((logits.detach() - wanted).log_softmax(0)[None], reference[None]).item()
    assert after(1.0) < after(0.5) < after(0.0) == pytest.approx(exact.item())
    assert after(1.0) == pytest.approx(stepped, rel=0.1)


def test_advantages_are_centred_in_their_group_and_exactly_zero_where_rewards_are_equal():
    assert centred_advantages([0.35] * 7, [0] * 7) == [0.0] * 7
    mixed = centred_advantages([1, 0.35, 0, 0.35, 0, 0, 0.35, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    assert mixed[0] == 0.875 and mixed[2] == -0.125
    assert [mixed[index] for index in (1, 3, 6)] == [0.0] * 3
    assert centred_advantages([5.0], [3]) == [0.0]
    with pytest.raises(ValueError, match="the reward of rollout 1 is nan; rewards must be finite numbers"):
        centred_advantages([0.0, math.nan], [0, 0])
    with pytest.raises(ValueError, match="2 rewards and 1 groups"):
        centred_advantages([0.0, 1.0], [0])


def test_tokens_of_rollouts_that_were_cut_off_are_in_no_denominator():
    lengths, cut_off = [10, 10, 10, 30], [False, False, False, True]
    counts = count_rollouts(lengths, cut_off)
    assert (counts.denominator, counts.mean_length, counts.share_cut_off) == (30, 15.0, 0.25)
    assert count_rollouts(lengths, cut_off, leave_out=False).denominator == 60
    assert count_rollouts([8], [True]).denominator == 0
    assert count_rollouts([], []).denominator == 0


def test_advantages_of_each_kind_by_hand():
    """E3: of one success in eight; equal rewards give 0 of every kind, also where rounding tells them apart."""
    rewards, groups = [1.0, 0, 0, 0, 0, 0, 0, 0], [0] * 8
    assert group_advantages(rewards, groups)[:2] == [0.875, -0.125]
    assert group_advantages(rewards, groups, "std")[0] == pytest.approx(2.6458, abs=5e-5)
    assert group_advantages(rewards, groups, "leave_one_out")[:2] == [1.0, pytest.approx(-1 / 7)]
    for kind in ("centred", "std", "leave_one_out"):
        assert group_advantages([0.35] * 8, groups, kind) == [0.0] * 8
        assert group_advantages([0.1 + 0.2, 0.3, 0.3], [0] * 3, kind) == [0.0] * 3
        assert group_advantages([5.0, 1.0, 3.0], [0, 1, 1], kind)[0] == 0.0
        assert sum(group_advantages([0.2, 0.7, 1.0], [4] * 3, kind)) == pytest.approx(0, abs=1e-12)
    # Over the whole batch, who fails where all fail is made less likely too; equal rewards teach nothing even so.
    assert group_advantages([1.0, 0.0, 0.0, 0.0], [0, 0, 1, 1], "batch") == [0.75, -0.25, -0.25, -0.25]
    assert group_advantages([0.35] * 8, groups, "batch") == [0.0] * 8
    with pytest.raises(
        ValueError, match="there are no advantages 'best'; there are: centred, std, leave_one_out, batch"
    ):
        group_advantages([1.0], [0], "best")
