import pytest
import torch


@pytest.fixture
def blobs():
    """Make two related tasks: Gaussian classes around corners, reference and target in different units."""

    def make(num_reference=3, num_target=3, n_reference=60, n_target=45, width=4, noise=0.7, seed=0, gap=3.0):
        generator = torch.Generator().manual_seed(seed)
        y, t = torch.arange(n_reference) % num_reference, torch.arange(n_target) % num_target
        corners = gap * torch.randn(max(num_reference, num_target), width, generator=generator)
        z = corners[y] + noise * torch.randn(n_reference, width, generator=generator)
        x = corners[t] + noise * torch.randn(n_target, width, generator=generator)
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        return z, y, 0.5 * x @ turn + 1, t

    return make
