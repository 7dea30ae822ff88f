"""The studies of the papers: matrices over tasks, hardness, normalised H-score, choice of a source, curriculum."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional.h_score import h_score
from lightning_transfer.screening import ranking
from lightning_transfer.studies import (
    normalized_h_score,
    rank_hardness,
    rank_sources,
    transfer_curriculum,
    transferability_matrix,
)

CELEBA = pd.read_csv(Path(__file__).parent / "_fixtures" / "public_tables" / "celeba_attributes.csv")


def attributes(n: int = 300, columns: int = 6, seed: int = 0, classes: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n, columns), generator=generator)
    labels[:, 1] = torch.where(torch.rand(n, generator=generator) < 0.8, labels[:, 0], labels[:, 1])
    return labels


def plain_nce(source: torch.Tensor, target: torch.Tensor) -> float:
    """Negative conditional entropy from a table of counts, in NumPy."""
    table = pd.crosstab(source.numpy(), target.numpy()).to_numpy() / len(source)
    given_source = table / table.sum(1, keepdims=True)
    return float((table[table > 0] * np.log(given_source[table > 0])).sum())


def test_celeba_table_recomputes():
    """Tran et al. 2019: entropies against errors of 40 attributes (source: identities)."""
    assert len(CELEBA) == 40
    transfer, dedicated = 1 - CELEBA.transfer_accuracy, 1 - CELEBA.dedicated_accuracy
    conditional, entropy = CELEBA.entropy_given_identity, CELEBA.entropy
    assert ranking.pearson(conditional, transfer) == pytest.approx(0.6297, abs=5e-5)
    assert ranking.pearson(entropy, transfer) == pytest.approx(0.6208, abs=5e-5)
    assert ranking.pearson(entropy, dedicated) == pytest.approx(0.5809, abs=5e-5)
    assert ranking.pearson(conditional, dedicated) == pytest.approx(0.5254, abs=5e-5)
    assert ranking.spearman(conditional, transfer) == pytest.approx(0.825, abs=5e-4)
    assert (conditional <= entropy).all()


def test_matrix_equals_one_pair_at_a_time():
    labels, sources = attributes(), attributes(columns=4, seed=1, classes=5)
    matrix = transferability_matrix(labels, sources)
    assert matrix.values.shape == (4, 6)
    assert matrix.values.dtype == torch.float64
    for s, t in itertools.product(range(4), range(6)):
        assert float(matrix.values[s, t]) == pytest.approx(plain_nce(sources[:, s], labels[:, t]), abs=1e-12)


def test_matrix_in_chunks_and_with_gaps(monkeypatch):
    labels = attributes()
    whole = transferability_matrix(labels).values
    nce_module = importlib.import_module("lightning_transfer.functional.negative_conditional_entropy")
    monkeypatch.setattr(nce_module, "_CHUNK_ENTRIES", 1)
    torch.testing.assert_close(transferability_matrix(labels).values, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(transferability_matrix(labels * 7 + 2).values, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(transferability_matrix(labels.to(torch.uint8)).values, whole, atol=1e-12, rtol=0)


def test_312_attributes_at_once():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (2000, 312), generator=generator)
    matrix = transferability_matrix(labels)
    assert matrix.values.shape == (312, 312)
    torch.testing.assert_close(matrix.values.diagonal(), torch.zeros(312, dtype=torch.float64), atol=1e-12, rtol=0)
    assert float(matrix.values[5, 9]) == pytest.approx(plain_nce(labels[:, 5], labels[:, 9]), abs=1e-12)
    assert bool((matrix.values <= 0).all())
    assert bool((matrix.values >= -matrix.hardness - 1e-12).all())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_matrix_does_not_depend_on_the_order_of_samples_or_ids(seed):
    labels = attributes(n=40, columns=3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shuffled = labels[torch.randperm(40, generator=generator)]
    renamed = torch.tensor([2, 0, 1])[shuffled]
    torch.testing.assert_close(
        transferability_matrix(renamed).values, transferability_matrix(labels).values, atol=1e-12, rtol=0
    )


def test_matrix_names_ranks_and_normalises():
    labels = attributes()
    frame = pd.DataFrame(labels.numpy(), columns=list("abcdef"))
    matrix = transferability_matrix(frame)
    torch.testing.assert_close(matrix.values, transferability_matrix(labels).values)
    assert list(matrix.to_pandas().columns) == list(matrix.to_pandas().index) == list("abcdef")
    ranked = matrix.ranked_sources("b")
    assert ranked.best == "a"
    assert "b" not in ranked.names
    assert matrix.ranked_targets("a").best == "b"
    assert ranked.to_pandas().nce.is_monotonic_decreasing
    shares = matrix.normalised()
    assert bool(((shares >= 0) & (shares <= 1)).all())
    torch.testing.assert_close(shares.diagonal(), torch.ones(6, dtype=torch.float64))
    assert torch.equal(
        transferability_matrix(torch.zeros(5, 2, dtype=torch.long)).normalised(), torch.ones(2, 2).double()
    )
    with pytest.raises(ValueError, match="`target` to be one of"):
        matrix.ranked_sources("z")


def test_matrix_with_log_likelihoods_ranks_sources_by_the_bound():
    labels = attributes(columns=3)
    likelihood = torch.tensor([-0.1, -0.5, -2.0])
    plain, bound = transferability_matrix(labels), transferability_matrix(labels, source_log_likelihood=likelihood)
    torch.testing.assert_close(bound.values, plain.values + likelihood.double()[:, None])
    with pytest.raises(ValueError, match="3 finite numbers"):
        transferability_matrix(labels, source_log_likelihood=torch.tensor([0.0, float("nan"), 0.0]))


def test_matrix_with_missing_labels():
    labels = attributes(n=200, columns=3)
    missing = labels.clone()
    missing[:50, 1] = -1
    matrix = transferability_matrix(missing, ignore_index=-1)
    assert float(matrix.values[0, 1]) == pytest.approx(plain_nce(labels[50:, 0], labels[50:, 1]), abs=1e-12)
    assert float(matrix.values[0, 2]) == pytest.approx(plain_nce(labels[:, 0], labels[:, 2]), abs=1e-12)
    missing[50:, 2] = -1
    with pytest.raises(ValueError, match="'1' and '2' share no labelled sample"):
        transferability_matrix(missing, ignore_index=-1)


def test_miller_madow_adds_half_the_occupied_cells():
    labels = attributes(n=50, columns=2)
    plain, corrected = transferability_matrix(labels), transferability_matrix(labels, miller_madow=True)
    cells = pd.crosstab(labels[:, 0].numpy(), labels[:, 1].numpy()).to_numpy()
    expected = ((cells > 0).sum() - len(cells)) / (2 * 50)
    assert float(plain.values[0, 1] - corrected.values[0, 1]) == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(corrected.hardness, plain.hardness + 2 / 100, atol=1e-12, rtol=0)


def test_hardness_ranks_easiest_first():
    columns = {
        "even": torch.tensor([0, 1] * 8),
        "rare": torch.tensor([1] + [0] * 15),
        "many": torch.arange(16),
        "one": torch.zeros(16, dtype=torch.long),
    }
    table = rank_hardness(columns)
    assert table.names == ("one", "rare", "even", "many")
    assert table.best == "one"
    expected = [0, -(math.log(1 / 16) / 16 + 15 / 16 * math.log(15 / 16)), math.log(2), math.log(16)]
    assert table.columns["hardness"] == pytest.approx(expected, abs=1e-12)
    assert table.columns["num_classes"] == (1, 2, 2, 16)
    ignoring = rank_hardness({"x": torch.tensor([0, 0, 1, 2, 2])}, ignore_index=0)
    assert ignoring.columns["hardness"][0] == pytest.approx(-(math.log(1 / 3) / 3 + 2 / 3 * math.log(2 / 3)))


def test_normalised_h_score():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    own = torch.randn(120, 6, generator=generator) + torch.nn.functional.one_hot(labels, 6) * 4
    source = own[:, 2:] + torch.randn(120, 4, generator=generator)
    ratio = normalized_h_score(source, labels, own)
    assert float(ratio) == pytest.approx(float(h_score(source, labels) / h_score(own, labels)), abs=1e-12)
    assert 0 < float(ratio) < 1
    assert float(normalized_h_score(source, labels, h_score(own, labels))) == pytest.approx(float(ratio), abs=1e-12)
    assert float(normalized_h_score(source, labels, 2.0)) == pytest.approx(float(h_score(source, labels)) / 2)
    assert float(normalized_h_score(own, labels, own, shrinkage="ledoit_wolf")) == pytest.approx(1)
    assert float(normalized_h_score(own, labels, source)) > 1
    for optimum in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive H-score"):
            normalized_h_score(source, labels, optimum)


def test_rank_sources_on_a_planted_problem():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 4
    clean = torch.nn.functional.one_hot(labels, 8) * 3 + torch.randn(240, 8, generator=generator)
    noisy = clean + 3 * torch.randn(240, 8, generator=generator)
    noise = torch.randn(240, 8, generator=generator)
    table = rank_sources({"noise": noise, "noisy": noisy, "clean": clean}, labels=labels, metrics=["h_score", "logme"])
    assert table.names == ("clean", "noisy", "noise")
    assert table.ranked_by == "logme"
    assert table.columns["h_score"][0] == pytest.approx(float(h_score(clean, labels)), abs=1e-10)
    by_h_score = rank_sources(
        {"noise": noise, "clean": {"features": clean}}, labels=labels, metrics="h_score", rank_by="h_score"
    )
    assert by_h_score.best == "clean"


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_rank_sources_follows_the_sign_of_a_variant(variant):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(90) % 3
    clean = torch.nn.functional.one_hot(labels, 4) * 3 + torch.randn(90, 4, generator=generator)
    table = rank_sources(
        {"noise": torch.randn(90, 4, generator=generator), "clean": clean},
        labels=labels, metrics="pactran", rank_by="pactran", options={"pactran": {"variant": variant}},
    )  # fmt: skip
    values = table.columns["pactran"]
    assert table.best == "clean"
    assert (values[0] > values[1]) is (variant == "paper")


def test_rank_sources_for_regression():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 5, generator=generator)
    targets = features[:, :2] * 2
    sources = {"half": features[:, 1:], "all": features}
    table = rank_sources(sources, targets=targets, metrics=["linear_mse"], rank_by="linear_mse")
    assert table.names == ("all", "half")
    assert list(table.to_pandas().columns) == ["linear_mse"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "exactly one of"),
        ({"labels": torch.arange(4) % 2, "targets": torch.rand(4)}, "exactly one of"),
        ({"labels": torch.arange(4) % 2, "metrics": "logmee"}, "'logmee'"),
        ({"labels": torch.arange(4) % 2, "metrics": "h_score"}, "`rank_by` to name a score"),
        ({"labels": torch.arange(5) % 2, "metrics": "logme"}, "rows"),
    ],
)
def test_rank_sources_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        rank_sources({"a": torch.rand(4, 2)}, **kwargs)
    with pytest.raises(ValueError, match="at least one source"):
        rank_sources({}, labels=torch.arange(4))


def best_by_trying_all(matrix: np.ndarray, scratch: float) -> float:
    """Least total of 1 - transferability over every choice of parents without a cycle."""
    k, best = len(matrix), math.inf
    for parents in itertools.product(range(-1, k), repeat=k):
        reached = {i for i in range(k) if parents[i] == -1}
        while True:
            more = {i for i in range(k) if parents[i] in reached} | reached
            if more == reached:
                break
            reached = more
        if len(reached) == k:
            best = min(best, sum(1 - (scratch if p < 0 else matrix[p, i]) for i, p in enumerate(parents)))
    return best


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 0.6))
def test_curriculum_is_the_best_of_all_trees(seed, scratch):
    matrix = np.random.default_rng(seed).random((4, 4))
    plan = transfer_curriculum(matrix, from_scratch=scratch)
    assert plan.cost == pytest.approx(best_by_trying_all(matrix, scratch), abs=1e-12)
    assert sorted(plan.order) == list("0123")
    for position, task in enumerate(plan.order):
        parent = plan.parents[task]
        assert parent is None or parent in plan.order[:position]
        expected = scratch if parent is None else matrix[int(parent), int(task)]
        assert plan.transferability[task] == pytest.approx(expected, abs=1e-12)


def test_curriculum_breaks_cycles_and_respects_the_root():
    # a and b are best learned from each other: one of them has to come first
    matrix = [[1.0, 0.9, 0.1], [0.95, 1.0, 0.2], [0.3, 0.1, 1.0]]
    plan = transfer_curriculum(matrix, names=["a", "b", "c"], from_scratch=[0.0, 0.0, 0.5])
    assert dict(plan.parents) == {"c": None, "b": None, "a": "b"} or plan.cost == pytest.approx(0.5 + 0.7 + 0.1)
    alone = transfer_curriculum(matrix, names=["a", "b", "c"], from_scratch=1.0)
    assert set(alone.parents.values()) == {None}
    assert alone.cost == 0
    assert transfer_curriculum([[0.0]], names=["only"]).order == ("only",)


def test_curriculum_from_attributes():
    labels = attributes()
    plan = transfer_curriculum(transferability_matrix(labels).normalised(), from_scratch=0.05)
    assert plan.parents["1"] == "0" or plan.parents["0"] == "1"
    assert plan.parents["5"] is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"transferability": [[1.0, 0.5]]}, "square matrix"),
        ({"transferability": [[1.0, math.nan], [0.5, 1.0]]}, "finite off its diagonal"),
        ({"transferability": [[1.0, 0.5], [0.5, 1.0]], "names": ["a", "a"]}, "2 different names"),
        ({"transferability": [[1.0, 0.5], [0.5, 1.0]], "from_scratch": [0.0, 0.0, 0.0]}, "one finite number or 2"),
    ],
)
def test_curriculum_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        transfer_curriculum(**kwargs)


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        (torch.zeros(4, 2), {}, "integer"),
        (torch.zeros(4, dtype=torch.long), {}, "2D integer tensor or named columns"),
        ({"a": torch.zeros(4, dtype=torch.long), "b": torch.zeros(3, dtype=torch.long)}, {}, "equal length"),
        (torch.zeros(4, 2, dtype=torch.long), {"names": ["a"]}, "2 different names"),
        (torch.zeros(4, 2, dtype=torch.long), {"source_names": ["a", "b"]}, "only beside `source_columns`"),
        (torch.full((4, 2), -1), {}, "from 0"),
        (torch.zeros(4, 2, dtype=torch.long), {"source_columns": torch.zeros(5, 2, dtype=torch.long)}, "rows"),
    ],
)
def test_matrix_refuses(columns, kwargs, message):
    with pytest.raises(ValueError, match=message):
        transferability_matrix(columns, **kwargs)
