"""References and backbones ranked by the bound."""

import pytest
import torch

from lightning_transfer.screening import rank_backbones, rank_references
from tests.relatedness._tasks import make


def test_rankings():
    z, y, x, t = make(0)
    generator = torch.Generator().manual_seed(1)
    references = {"noise": (torch.randn(z.shape, generator=generator), y), "related": (z, y)}
    ranking = rank_references(references, x, t, baselines=0)
    assert ranking.best == "related"
    assert list(ranking) == list(ranking.to_dict()) == ["related", "noise"]
    assert "related" in str(ranking)
    assert ranking.undecided() == []
    with_copies = rank_references(references, x, t, baselines=3)
    differences = [result.baseline.difference for result in with_copies.results.values()]
    assert differences == sorted(differences)
    assert "random copies" in str(with_copies)
    corrected = rank_backbones({"a": (z, y, x, t), "b": (z, y, x, t)}, confidence=0.9)
    assert corrected.results["a"].config.confidence == pytest.approx(0.95)
    wide = make(0, width=9, noise=0.1)
    assert set(rank_backbones({"narrow": (z, y, x, t), "wide": wide}, ground_cost="logit_range")) == {"narrow", "wide"}
    with pytest.raises(ValueError, match="at least one candidate"):
        rank_backbones({})


def test_backbones_for_a_target_without_labels_are_ordered_by_the_loss_on_the_reference():
    z, y, x, _ = make(0)
    vague = z + 6 * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    ranking = rank_backbones({"vague": (vague, y, x, None), "clear": (z, y, x, None)})
    assert list(ranking) == ["clear", "vague"]
    losses = [result.reference_loss for result in ranking.results.values()]
    assert losses == sorted(losses)
    assert "held-out loss of a classifier of the reference" in str(ranking)
    other_way = rank_references({"vague": (vague, y), "clear": (z, y)}, x, None, baselines=0)
    bounds = [result.bound for result in other_way.results.values()]
    assert bounds == sorted(bounds)  # an easy reference is no related one
