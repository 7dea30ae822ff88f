"""References and backbones ranked by the bound."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.functional import task_relatedness
from lightning_transfer.relatedness import BoundConfig
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


def test_references_have_groups_of_their_own():
    z, y, x, t = make(0, n_target=48)
    groups, others = torch.arange(48) // 4, torch.arange(48) // 3
    grouped = {"plain": (z, y), "grouped": (z, y, groups)}
    ranking = rank_references(grouped, x, t, baselines=0, rounds=1, target_groups=others)
    for name, ids in (("plain", None), ("grouped", groups)):
        expected = task_relatedness(z, y, x, t, rounds=1, reference_groups=ids, target_groups=others)
        assert ranking.results[name].bound == expected.bound
    for options, message in (
        ({"reference_groups": groups}, "`reference_groups` .* hand groups in with each reference"),
        ({"head": torch.nn.Linear(4, 3)}, "`head` for a ranking"),
        ({"evaluation": (z, y, x, t)}, "`evaluation` for a ranking"),
    ):
        with pytest.raises(ValueError, match=message):
            rank_references(grouped, x, t, **options)
    with pytest.raises(ValueError, match=r"features and labels of reference 'plain'.*got 1 entries"):
        rank_references({"plain": (z,)}, x, t)


def test_a_config_says_what_options_would():
    z, y, x, t = make(0)
    config = BoundConfig(confidence=0.9, baselines=1, rounds=1)
    ranking = rank_references({"a": (z, y), "b": (z, y)}, x, t, config=config)
    assert ranking.results["a"].config.confidence == pytest.approx(0.95)
    assert len(ranking.results["a"].baseline.copies) == 1


def test_a_vacuous_bound_is_called_so_where_it_is_compared():
    z, y, x, t = make(0)
    vague = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    text = str(rank_references({"vague": (vague, y), "clear": (z, y)}, x, t, baselines=2, tau=4.0, rounds=1))
    lines = [line for line in text.splitlines() if line.startswith("vague")]
    assert any(line.endswith("the bound is vacuous") for line in lines)
    assert any(line.endswith("the bound under a turning map is vacuous") for line in lines)
    assert not any("vacuous" in line for line in text.splitlines() if line.startswith("clear"))


def test_backbones_for_a_target_without_labels_are_ordered_by_the_loss_on_the_reference():
    z, y, x, _ = make(0)
    vague = z + 6 * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    ranking = rank_backbones({"vague": (vague, y, x, None), "clear": (z, y, x, None)})
    assert list(ranking) == ["clear", "vague"]
    losses = [result.reference_loss for result in ranking.results.values()]
    assert losses == sorted(losses)
    assert "held-out loss of a classifier of the reference" in str(ranking)
    assert "labels that were found, not on the true ones" in str(ranking)
    assert "agreement with the labels that were found" in str(ranking.results["clear"])
    other_way = rank_references({"vague": (vague, y), "clear": (z, y)}, x, None, baselines=0)
    bounds = [result.bound for result in other_way.results.values()]
    assert bounds == sorted(bounds)  # an easy reference is no related one


def test_a_related_reference_comes_before_garments_blobs_and_permuted_labels():
    """Emoji of one drawing style for those of another: features of an inner layer of a trained network.

    The features are those of EfficientNet-Lite2 at 64 pixels, averaged over positions (``lite2_layer40`` of
    benchmarks/image_tasks.py), of emoji without a common one and of garments, 420 each.
    """
    arrays = np.load(Path(__file__).parents[1] / "_fixtures" / "emoji_features.npz", allow_pickle=False)

    def side(name):
        labels = torch.from_numpy(arrays[f"{name}_labels"].astype(np.int64))
        return torch.from_numpy(arrays[name].astype(np.float32)), labels

    (z, y), (x, t) = side("style"), side("target")
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(len(z)) % 9
    centres, noise = (torch.randn(count, z.shape[1], generator=generator) for count in (9, len(z)))
    references = {
        "garments": side("garments"),
        "blobs": (z.std() * (0.5 * centres[numbers] + noise), numbers),
        "permuted": (z, y[torch.randperm(len(y), generator=generator)]),
        "other style": (z, y),
    }
    ranking = rank_references(references, x, t)
    baselines = {name: result.baseline for name, result in ranking.results.items()}
    assert ranking.best == "other style"
    assert baselines["other style"].decided
    assert not baselines["garments"].decided
    assert "other style" not in {name for pair in ranking.undecided() for name in pair}
