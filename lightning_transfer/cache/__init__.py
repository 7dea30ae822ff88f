"""Features that need no second pass: what they are known by, where they lie, and how scores get them again."""

from lightning_transfer.cache.passes import CachedPasses
from lightning_transfer.cache.store import FeatureCache

__all__ = ["CachedPasses", "FeatureCache"]
