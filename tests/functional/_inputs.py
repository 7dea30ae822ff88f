"""Inputs that the tests of several scores share."""

from __future__ import annotations

import torch
from _helpers import make_inputs
from hypothesis import settings
from hypothesis import strategies as st

some_data = st.builds(
    lambda seed, n, d, classes: make_inputs(seed=seed, n=n, d=d, classes=classes),
    st.integers(0, 10_000), st.integers(12, 40), st.integers(2, 30), st.integers(2, 5),
)  # fmt: skip


quick = settings(deadline=None, max_examples=25)


def pair(inputs):
    return inputs["features"], inputs["labels"]


def random_rotation(d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]


def data(name):
    """Features and labels 0 .. c - 1 of a kind."""
    sizes = {"plain": {}, "wide": {"n": 30, "d": 45}, "barely wide": {"n": 30, "d": 31}, "two classes": {"classes": 2}}
    inputs = make_inputs(seed=7, **sizes.get(name, {}))
    x, y = inputs["features"], inputs["labels"]
    if name == "singletons":
        y = torch.cat([torch.tensor([0, 1, 2, 3]).repeat_interleave(27)[: len(y) - 2], torch.tensor([4, 5])])
    if name == "constant feature":
        x[:, 2] = 3.0
    if name == "far from zero":
        x = x + 1e4
    if name == "small":
        x = 0.2 * x
    return x, y


def attributes(n=60):
    inputs = make_inputs(n=n)
    columns = torch.stack([inputs["labels"] == 1, inputs["labels"] >= 2, inputs["targets"][:, 0] > 0], dim=1)
    return inputs["features"], columns.long()
