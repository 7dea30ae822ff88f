"""Versions that results carry."""

from __future__ import annotations

import platform

import torch

from lightning_transfer.utilities.versions import versions


def test_versions_of_what_is_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"].partition("+")[0])
    assert "no-such-library" not in found
