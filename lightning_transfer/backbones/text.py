"""Text on its way to a network: strings to token ids, which every text backbone does alike."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.backbones.base import Backbone


class TextBackbone(Backbone):
    """A backbone that takes a list of strings, or tokens as a dict of tensors ``(b, t)`` with ``input_ids``.

    A subclass defines :meth:`tokenize` and sets :attr:`max_length`.

    Attributes:
        max_length: Tokens at which text is cut.
    """

    max_length: int

    @abc.abstractmethod
    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Token ids and mask of strings, cut at :attr:`max_length`."""

    def preprocess(self, inputs: Any) -> Any:
        """Strings to token ids; tokens pass.

        Args:
            inputs: A list of strings, or a dict of tensors with ``input_ids`` of at most :attr:`max_length` tokens.

        Raises:
            ValueError: If it is something else, or the tokens are more than the network has positions for.
        """
        if isinstance(inputs, (list, tuple)) and all(isinstance(text, str) for text in inputs):
            tokens = self.tokenize(list(inputs))
        elif isinstance(inputs, Mapping) and isinstance(inputs.get("input_ids"), Tensor):
            tokens = inputs
            length = inputs["input_ids"].shape[1]
            if length > self.positions:
                raise ValueError(
                    f"Expected argument `inputs` to hold at most {self.positions} tokens, as {self.name} has positions "
                    f"for, but got {length}."
                )
        else:
            images = isinstance(inputs, Tensor) and inputs.ndim == 4
            pictures = ", pictures, which need a backbone for them (efficientnet_lite0, timm/NAME)" if images else ""
            raise ValueError(
                "Expected argument `inputs` to be a list of strings or a dict of token tensors with `input_ids`, "
                f"but got {type(inputs).__name__}{pictures}."
            )
        return {name: value.to(self.device) for name, value in tokens.items() if isinstance(value, Tensor)}

    @property
    def positions(self) -> float:
        """Most tokens that the network can take."""
        return float("inf")

    def example_inputs(self, batch_size: int) -> Any:
        """Tokens of a text that fills :attr:`max_length`."""
        return dict(self.tokenize(["word " * self.max_length] * batch_size))


def first_of(output: Any) -> Tensor:
    """The vectors of an output that is a tensor already or holds them as ``pooler_output``."""
    vectors: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors


def refuse_code(options: Mapping[str, Any]) -> None:
    """Refuse to run the code that a model brings.

    Raises:
        ValueError: If ``trust_remote_code`` is asked for.
    """
    if options.get("trust_remote_code"):
        raise ValueError("Expected argument `trust_remote_code` to be left out: the code of a model is never run.")
