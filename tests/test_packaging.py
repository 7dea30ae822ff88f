"""What is installed: the list of packages, the configs inside the wheel, and nothing heavy on import."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_list_of_packages_follows_the_tree(settings):
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lightning_transfer").rglob("__init__.py")
    }
    assert sorted({*found, "lightning_transfer.conf"}) == sorted(settings["tool"]["setuptools"]["packages"])


def test_wheel_holds_configs_and_types(tmp_path):
    source = tmp_path / "source"  # building leaves files behind
    for folder in ("lightning_transfer", "conf"):
        shutil.copytree(ROOT / folder, source / folder)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {
        "lightning_transfer/conf/" + str(path.relative_to(ROOT / "conf")) for path in ROOT.glob("conf/**/*.yaml")
    }
    assert configs
    assert configs <= names
    assert "lightning_transfer/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("lightning_transfer", {"torch", "lightning", "sklearn", "matplotlib", "pandas", "ot", "hydra"}),
        ("lightning_transfer.cli", {"torch", "lightning", "sklearn", "matplotlib", "pandas", "ot"}),
        ("lightning_transfer.functional", {"pandas", "ot", "hydra"}),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {heavy!r}))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_public_names():
    import lightning_transfer

    for name in lightning_transfer.__all__:
        assert getattr(lightning_transfer, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lightning_transfer.no_such_name
