"""Features that were computed elsewhere, in the place of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.backbones.base import Backbone, BackboneOutput
from lightning_transfer.utilities.checks import check_features, check_probabilities


class PrecomputedFeatures(Backbone):
    """Stored features, and probabilities of source classes where there are some; its inputs are numbers of samples.

    Args:
        features: Shape ``(n, d)``, floating or integer.
        source_probs: Shape ``(n, k)``, rows on the simplex; ``None`` where there was no classifier.
        name: What tables call it.

    Raises:
        ValueError: If the features are no finite matrix, or the probabilities are none of as many samples.

    Example:
        >>> import torch
        >>> from lightning_transfer.backbones import PrecomputedFeatures
        >>> stored = PrecomputedFeatures(torch.eye(3), torch.full((3, 2), 0.5))
        >>> stored(torch.tensor([2, 0])).features
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    gives_outputs = False  # logarithms of probabilities are logits up to a constant that is lost

    def __init__(self, features: Any, source_probs: Any = None, *, name: str = "features") -> None:
        matrix = check_features(_as_floating(features), "features")
        probs = None if source_probs is None else check_probabilities(_as_floating(source_probs), len(matrix))
        super().__init__(
            name=name,
            feature_dim=matrix.shape[1],
            num_source_classes=None if probs is None else probs.shape[1],
            input_shape=(1,),
            preprocessing=None,
        )
        self.features: Tensor
        self.log_probs: Tensor | None
        self.register_buffer("features", matrix, persistent=False)
        smallest = 0.0 if probs is None else torch.finfo(probs.dtype).tiny
        logarithms = None if probs is None else probs.clamp_min(smallest).log()
        self.register_buffer("log_probs", logarithms, persistent=False)

    @classmethod
    def of(cls, value: Any, name: str) -> PrecomputedFeatures:
        """Make one of features, or of a pair of features and probabilities.

        Raises:
            ValueError: As for the class, with the name before it.
        """
        try:
            return cls(*(value if isinstance(value, (tuple, list)) else [value]), name=name)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error

    def __len__(self) -> int:
        return len(self.features)

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """Look up features and logarithms of probabilities by number of sample, shape ``(b,)``."""
        return BackboneOutput(self.features[inputs], None if self.log_probs is None else self.log_probs[inputs])

    def example_inputs(self, batch_size: int) -> Tensor:
        """Numbers of samples."""
        return torch.arange(batch_size) % len(self)


def _as_floating(values: Any) -> Any:
    values = torch.from_numpy(values) if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" else values
    return values.float() if isinstance(values, Tensor) and not values.is_floating_point() else values
