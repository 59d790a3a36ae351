"""Every row is in an epoch once, in an order of (seed, epoch) alone; a run that is gone on with reads what was left."""

import random
from collections import Counter

import chat_samples as samples
import pytest
import torch
from step_trainers import Kit, run, settings
from torch import nn

from data.chat_messages import Conversation
from data.chat_renderer import Renderer
from data.data_error import DataError
from data.sharding import StandIn, with_stand_ins
from data.token_batches import TokenBatches, pack_rows
from data.token_row import TokenRow
from model.causal_lm import CausalLM, DecoderShape
from model.packed_attention import PackedRows
from train.base_trainer import BaseTrainer


def rows_of(lengths, trained=2) -> list[TokenRow]:
    """Rows of given lengths; of each the last tokens are trained on, and the ids tell the row."""
    return [TokenRow.of([100 * n + k for k in range(length)], [0.0] * (length - trained) + [1.0] * trained)
            for n, length in enumerate(lengths)]  # fmt: skip


def drawn_lengths(count, seed=0):
    draw = random.Random(seed)
    return [draw.randint(3, 60) for _ in range(count)]


def test_rows_lie_end_to_end_and_only_trained_tokens_have_targets():
    batch = pack_rows(rows_of([4, 3]), [7, 8])
    assert batch.tokens.tolist() == [0, 1, 2, 100, 101]
    assert batch.rows.lengths == (3, 2) and batch.rows.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.places.tolist() == [1, 2, 3, 4] and batch.targets.tolist() == [2, 3, 101, 102]
    assert batch.weights.tolist() == [1.0] * 4 and batch.total_weight == 4.0
    assert (batch.batch_size, batch.numbers) == (2, (7, 8))
    half = pack_rows([TokenRow.of([1, 2, 3], [0.0, 0.5, 0.0])])
    assert (half.places.tolist(), half.targets.tolist(), half.total_weight) == ([0], [2], 0.5)
    with pytest.raises(ValueError, match="a row needs 2 tokens"):
        pack_rows([TokenRow.of([1], [0.0])])


def test_what_is_known_of_trained_tokens_goes_with_them():
    lengths = drawn_lengths(9)
    rows = [TokenRow(row.ids, row.weights, row.place, {"best": row.ids[-2:, None] * torch.tensor([1, -1])})
            for row in rows_of(lengths)]  # fmt: skip
    loader = TokenBatches(rows, 4, shuffle=True)
    for batch in loader:
        assert torch.equal(batch.of_trained["best"], batch.targets[:, None] * torch.tensor([1, -1]))
        again = loader.collate_fn([loader.dataset[number] for number in batch.numbers])
        assert torch.equal(again.of_trained["best"], batch.of_trained["best"])
    row = loader.token_row(3)
    assert torch.equal(row.of_trained["best"], rows[3].of_trained["best"]) and torch.equal(row.ids, rows[3].ids)
    longer = TokenRow.of([1, 2, 3, 4], [0, 0, 1, 0])
    longer = TokenRow(longer.ids, longer.weights, "", {"best": torch.tensor([[3]])}).needed()
    assert len(longer.ids) == 3 and longer.of_trained["best"].tolist() == [[3]]
    with pytest.raises(ValueError, match="best has 1 entries for 2 tokens"):
        pack_rows([TokenRow(rows[0].ids, rows[0].weights, "", {"best": torch.tensor([1])})])
    with pytest.raises(DataError, match="rows differ"):
        TokenBatches([rows[0], rows_of([5])[0]], 2)


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(7, 2, 4), (3, 8, 1), (10, 2, 5), (1, 1, 1)])
def test_no_row_is_lost_at_the_end(count, batch_size, steps):
    loader = TokenBatches(rows_of(drawn_lengths(count)), batch_size, shuffle=True)
    for _ in range(3):
        numbers = [number for batch in loader for number in batch.numbers]
        assert sorted(numbers) == list(range(count)) and len(loader) == steps


@pytest.mark.parametrize("batch_size", [0, 4])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_batches_by_tokens_hold_every_row_and_no_more_than_they_may(seed, shuffle, batch_size):
    lengths = drawn_lengths(101, seed)
    loader = TokenBatches(rows_of(lengths), batch_size, max_tokens=150, shuffle=shuffle, seed=seed)
    counts, seen = set(), []
    for epoch in range(4):
        loader.set_epoch(epoch)
        batches = list(loader)
        numbers = [batch.numbers for batch in batches]
        assert sorted(number for batch in numbers for number in batch) == list(range(101))
        assert all(len(batch.tokens) <= 150 and batch.batch_size <= (batch_size or 101) for batch in batches)
        assert [sum(lengths[n] - 1 for n in batch.numbers) for batch in batches] == [len(b.tokens) for b in batches]
        counts.add(len(batches))
        seen.append(numbers)
    assert counts == {len(loader)}
    assert (seen[0] != seen[1]) == shuffle
    if shuffle and not batch_size:  # hardly more batches than tokens need
        assert len(loader) <= 1.1 * sum(length - 1 for length in lengths) / 150 + 1
        mates = [
            Counter(frozenset((a, b)) for batch in numbers for a in batch for b in batch if a < b) for numbers in seen
        ]
        together = sum((mates[0] & mates[1]).values()) / sum(mates[0].values())
        assert together < 0.3  # rows of a batch meet others in the next epoch


def test_the_order_is_that_of_seed_and_epoch():
    rows = rows_of(drawn_lengths(20))
    first, second = (TokenBatches(rows, 3, shuffle=True, seed=5) for _ in range(2))
    counted = [[batch.numbers for batch in first] for _ in range(3)]
    torch.manual_seed(99)
    second.set_epoch(2)
    assert [batch.numbers for batch in second] == counted[2] and counted[1] != counted[2]
    assert [batch.numbers for batch in TokenBatches(rows, 3, shuffle=True, seed=6)] != counted[0]
    second.set_epoch(1)
    assert second.first_batch().numbers == counted[1][0] and second.epoch == 1
    assert [number for batch in TokenBatches(rows, 3) for number in sorted(batch.numbers)] == list(range(20))


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_each_batch(size):
    rows = rows_of(drawn_lengths(11))
    whole = list(TokenBatches(rows, 4, max_tokens=120, shuffle=True))
    parts = []
    for rank in range(size):
        loader = TokenBatches(rows, 4, max_tokens=120, shuffle=True)
        loader.shard_loader(rank, size)
        parts.append(list(with_stand_ins(loader)))
    for number, batch in enumerate(whole):
        shared = [part[number] for part in parts]
        numbers = [n for part in shared if not isinstance(part, StandIn) for n in part.numbers]
        assert sorted(numbers) == sorted(batch.numbers)
        assert all(part.batch.numbers == batch.numbers[:1] for part in shared if isinstance(part, StandIn))
    single = TokenBatches(rows[:1], 4)
    single.shard_loader(1, 2)
    assert [type(part) for part in with_stand_ins(single)] == [StandIn]


def test_settings_out_of_range_are_refused():
    rows = rows_of([5, 9])
    for words, options in (
        ("one of them must say", {}), ("batch_size is -1", {"batch_size": -1}),
        ("max_tokens is 7, but the longest row reads 8 tokens", {"max_tokens": 7}),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            TokenBatches(rows, **options)
    with pytest.raises(DataError, match="there are no rows"):
        TokenBatches([], 1)
    with pytest.raises(DataError, match="fewer than 2 tokens"):
        TokenBatches([TokenRow.of([1], [0.0])], 1)
    assert len(TokenBatches(rows, max_tokens=8)) == 2


def test_the_dataset_gives_rows_that_pack():
    loader = TokenBatches(rows_of([4, 3]), 2)
    data = loader.dataset
    batch = loader.collate_fn([data[0], data[-1]])
    assert loader.token_row(1).targets() == [[101, 102]] and loader.origins == ("", "")
    assert len(data) == 2 and torch.equal(batch.tokens, loader.first_batch().tokens)
    with pytest.raises(IndexError):
        data[2]


def small_model() -> CausalLM:
    shape = DecoderShape(vocabulary=256 + len(samples.SPECIAL), width=32, layers=2, heads=4, kv_heads=2, head_dim=8,
                         mlp_width=64, context=128)  # fmt: skip
    return CausalLM(shape).draw(0, std=0.2)


def losses_of(model: CausalLM, batch) -> torch.Tensor:
    """The loss of each token that is trained on."""
    hidden = model.hidden(batch.tokens, batch.rows)[batch.places]
    return nn.functional.cross_entropy(model.logits(hidden), batch.targets, reduction="none")


def test_rows_of_a_batch_do_not_see_each_other():
    model, rows = small_model(), rows_of([5, 40, 3, 17], trained=3)
    rows = [TokenRow.of([token % 256 for token in row.ids.tolist()], row.weights.tolist()) for row in rows]
    packed = losses_of(model, pack_rows(rows)).split([3, 3, 2, 3])  # what comes first in a row is predicted by nothing
    for row, losses in zip(rows, packed, strict=True):
        assert torch.allclose(losses, losses_of(model, pack_rows([row])), atol=1e-5)
    changed = TokenRow.of([7, *rows[0].ids.tolist()[1:]], rows[0].weights.tolist())
    after = losses_of(model, pack_rows([changed, *rows[1:]])).split([3, 3, 2, 3])
    assert not torch.equal(after[0], packed[0])
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(after[1:], packed[1:], strict=True))


def test_a_model_that_has_learnt_an_answer_ends_it():
    pytest.importorskip("transformers")
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ok"}]
    tokenizer = samples.byte_tokenizer()
    tokenizer.pad_token = "<|im_end|>"  # what isn't padded needs no masking by an id
    made = Renderer(tokenizer)
    rows = made.train_rows(Conversation.of(talk))
    assert rows[0].targets() == [[79, 107, 260]]
    model, loader = small_model(), TokenBatches([row.needed() for row in rows], 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        for batch in loader:
            loss = losses_of(model, batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss < 0.05
    ids = made.prompt(Conversation.of(talk[:1]))
    prompt = len(ids)
    while len(ids) < prompt + 20 and ids[-1] not in made.end_ids:
        hidden = model.hidden(torch.tensor(ids), PackedRows.of([len(ids)]))
        ids.append(int(model.logits(hidden[-1:]).argmax()))
    assert tokenizer.decode(ids[prompt:]) == "Ok<|im_end|>"


class TokenTrainer(Kit, BaseTrainer):
    """Predicts tokens from the token before; notes which rows each step has."""

    def __init__(self, folder, fail_at=0, trained=None, **changes) -> None:
        config = settings(folder, **{"epochs": 3, "batch_size": 2, "learning_rate": 0.1, **changes})
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(1100, 8), nn.Linear(8, 1100))
        rows = rows_of(drawn_lengths(10)) if trained is None else [row for n in trained for row in rows_of([n + 1], n)]
        loaders = [TokenBatches(rows, config.batch_size, shuffle=shuffle) for shuffle in (trained is None, False)]
        self.seen, self.losses, self.fail_at = [], [], fail_at
        self.furnish(config, loaders, torch.optim.SGD(self.model.parameters(), lr=config.learning_rate))

    def compute_loss(self, batch):
        """The mean over the tokens that are trained on, which the batch's count weighs."""
        hidden = self.model(batch.tokens[batch.places])
        losses = nn.functional.cross_entropy(hidden, batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.total_weight
        self._set_loss_count(batch.total_weight)
        if self.model.training and self.run_context.saver is not None:
            self.seen.append(batch.numbers)
            self.losses.append(loss.item())
            if len(self.seen) == self.fail_at:
                raise RuntimeError("the power failed")
        return loss


def test_a_run_that_is_gone_on_with_reads_what_was_left(tmp_path):
    whole = run(TokenTrainer, tmp_path / "whole")
    steps, losses = whole.seen[-15:], whole.losses[-15:]
    assert sorted(n for batch in steps[5:10] for n in batch) == list(range(10)) and steps[:5] != steps[5:10]
    tried = len(whole.seen) - 15  # batches that were tried before training
    with pytest.raises(BaseException, match="power failed"):
        run(TokenTrainer, tmp_path / "part", fail_at=tried + 8, checkpoint_every_n_steps=1)
    rest = run(TokenTrainer, tmp_path / "part", resume="latest")
    assert rest.seen[-8:] == steps[7:] and rest.losses[-8:] == losses[7:]
    for name, tensor in whole.last.items():
        assert torch.equal(tensor, rest.last[name]), name


def test_micro_batches_weigh_their_tokens(tmp_path):
    together = run(TokenTrainer, tmp_path / "one", trained=[1, 9], epochs=1)
    apart = run(TokenTrainer, tmp_path / "two", trained=[1, 9], epochs=1, batch_size=1, accumulation_steps=2)
    for name, tensor in together.last.items():
        assert torch.allclose(tensor, apart.last[name], atol=1e-6), name
    losses = [made.run_context.record.history["train_loss"][-1] for made in (together, apart)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
