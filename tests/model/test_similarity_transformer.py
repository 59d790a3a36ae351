"""The transformer that scores models: what it must not depend on, and what must learn."""

import pytest
import torch

from model.ranking_losses import list_net
from model.similarity_transformer import SimilarityEnsemble, SimilarityTransformer, TransformerShape

SHAPE = TransformerShape(dataset_dim=5, model_dim=7, pair_dim=3, width=16, layers=2, heads=4)


def trained_a_little(shape: TransformerShape) -> SimilarityTransformer:
    """A transformer whose head is no longer zero, in evaluation mode."""
    torch.manual_seed(0)
    model = SimilarityTransformer(shape).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def lists():
    """Two lists of four classes and six models."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, *size, generator=generator) for size in ((4, 5), (6, 7), (6, 3))]


@torch.no_grad()
def test_permuting_models_permutes_their_scores(lists):
    datasets, models, pairs = lists
    model, order = trained_a_little(SHAPE), torch.tensor([3, 0, 5, 1, 4, 2])
    scores = model(datasets, models, pairs)
    assert scores.shape == (2, 6) and scores.std() > 0.1
    assert torch.allclose(model(datasets, models[:, order], pairs[:, order]), scores[:, order], atol=1e-5)


@torch.no_grad()
def test_order_of_classes_changes_nothing_but_classes_count(lists):
    datasets, models, pairs = lists
    model = trained_a_little(SHAPE)
    scores = model(datasets, models, pairs)
    assert torch.allclose(model(datasets[:, [2, 0, 3, 1]], models, pairs), scores, atol=1e-5)
    assert not torch.allclose(model(datasets[:, :3], models, pairs), scores, atol=1e-3)


@torch.no_grad()
def test_lists_of_a_batch_do_not_mix(lists):
    model = trained_a_little(SHAPE)
    alone = torch.cat([model(*(part[row : row + 1] for part in lists)) for row in range(2)])
    assert torch.allclose(model(*lists), alone, atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing_for_the_others(lists):
    datasets, models, pairs = lists
    model = trained_a_little(SHAPE)
    padded = [torch.cat([part, torch.full((2, 2, part.shape[2]), 9.0)], dim=1) for part in (datasets, models, pairs)]
    masks = [torch.tensor([True] * real + [False] * 2).expand(2, -1) for real in (4, 6)]
    scores = model(*padded, *masks)
    assert torch.allclose(scores[:, :6], model(datasets, models, pairs), atol=1e-5)
    assert (scores[:, 6:] == 0).all()
    assert not torch.allclose(model(*padded)[:, :6], scores[:, :6], atol=1e-3), "without masks padding counts"


def test_a_new_transformer_has_no_opinion_and_what_is_known_of_a_pair_counts_linearly(lists):
    model = SimilarityTransformer(SHAPE).eval()
    assert (model(*lists) == 0).all()
    torch.nn.init.constant_(model.evidence.weight, 0.5)
    assert torch.allclose(model(*lists), 0.5 * lists[2].sum(-1), atol=1e-6)


@torch.no_grad()
def test_without_pair_features_a_new_transformer_says_nothing_and_a_trained_one_something(lists):
    shape = TransformerShape(5, 7, 0, width=16)
    assert not SimilarityTransformer(shape).eval()(*lists[:2]).any()
    assert trained_a_little(shape)(*lists[:2]).std() > 0.1


@pytest.mark.parametrize("pair_dim", [0, 3])
def test_every_parameter_gets_a_gradient_once_the_head_has_moved(lists, pair_dim):
    torch.manual_seed(0)
    model = SimilarityTransformer(TransformerShape(5, 7, pair_dim, width=16, dropout=0.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    inputs = lists if pair_dim else lists[:2]
    truth, mask = torch.randn(2, 6), torch.ones(2, 6, dtype=torch.bool)
    for _ in range(2):
        optimizer.zero_grad()
        list_net(model(*inputs), truth, mask).backward()
        optimizer.step()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_members_of_an_ensemble_differ_and_are_scored_side_by_side(lists):
    ensemble = SimilarityEnsemble(SHAPE, 3).eval()
    with torch.no_grad():
        for member in ensemble.members:
            torch.nn.init.ones_(member.head.weight)
            member.head.weight[:, ::2] = -1.0
        scores = ensemble(*lists)
        assert scores.shape == (3, 2, 6)
        for place, member in enumerate(ensemble.members):
            assert torch.allclose(scores[place], member(*lists), atol=1e-6)
    assert (scores[0] - scores[1]).abs().max() > 1e-3 and (scores[1] - scores[2]).abs().max() > 1e-3


def test_dropout_is_for_training_only(lists):
    model = trained_a_little(SHAPE)
    assert torch.equal(model(*lists), model(*lists))
    model.train()
    assert not torch.equal(model(*lists), model(*lists))
