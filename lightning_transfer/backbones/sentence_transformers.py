"""Models of the sentence-transformers library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_transfer.backbones.base import BackboneOutput, weights_of
from lightning_transfer.backbones.initialisation import reinitialise
from lightning_transfer.backbones.text import TextBackbone, refuse_code
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.imports import require

_OWN = "sentence_transformers."


class SentenceTransformersBackbone(TextBackbone):
    """A text model of sentence-transformers: features are what its ``encode`` gives, normalisation included.

    A folder whose ``modules.json`` names classes of another package than sentence-transformers is refused.

    Args:
        model_name: Name on the hub (``sentence-transformers/`` may be left out) or folder.
        max_length: Tokens at which text is cut; by default what the model was saved with.
        pretrained: ``False`` replaces the weights by random ones from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default the last part of ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``SentenceTransformer``, such as ``revision`` or ``local_files_only``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[sentence_transformers]``.
        ValueError: If the model is not at hand, brings code of its own, or takes no text.
    """

    def __init__(
        self,
        model_name: str | Path,
        *,
        max_length: int | None = None,
        pretrained: bool = True,
        seed: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        library = require("sentence_transformers", extra="sentence_transformers")
        refuse_code(kwargs)
        _check_modules(Path(model_name))
        with weights_of(f"st/{model_name}"):
            network = library.SentenceTransformer(str(model_name), device="cpu", **kwargs)
        if not pretrained:
            reinitialise(network, seed)
        if max_length is not None:
            network.max_seq_length = min(
                check_positive_int(max_length, "max_length"), network.max_seq_length or max_length
            )
        length = int(network.max_seq_length or 128)
        super().__init__(
            name=name or Path(model_name).name + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=None,
            input_shape=(length,),
            preprocessing=None,
        )
        self.max_length = length
        self.network: Any = network
        self.feature_dim = self._try().features.shape[1]

    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Token ids and mask of strings, cut at :attr:`max_length`."""
        prepare = getattr(self.network, "preprocess", None) or self.network.tokenize
        tokens: Mapping[str, Tensor] = prepare(texts)
        return tokens

    def encode(self, inputs: dict[str, Tensor]) -> BackboneOutput:
        """Sentence vectors of tokens."""
        return BackboneOutput(self.network(dict(inputs))["sentence_embedding"], None)


def _check_modules(folder: Path) -> None:
    """Refuse a folder that names classes of other packages, which older versions of the library would import."""
    file = folder / "modules.json"
    if not file.is_file():
        return
    try:
        kinds = [str(module["type"]) for module in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"Expected `{file}` to be a list of modules with a type, but reading it failed.") from error
    foreign = [kind for kind in kinds if not kind.startswith(_OWN)]
    if foreign:
        raise ValueError(f"Expected `{file}` to name modules of sentence_transformers only, but got {foreign[0]!r}.")
