"""The packaged configs by name."""

from __future__ import annotations

import lightning_transfer.conf
import pytest
from hydra import compose, initialize_config_module

from lightning_transfer.configs import known_configs, load_config, read_config
from lightning_transfer.utilities.instantiate import instantiate

REQUIRED = {"relate": ["reference=digits"]}


@pytest.fixture(autouse=True, scope="module")
def application():
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        yield


def composed(job: str, *overrides: str):
    return compose(job, [*REQUIRED.get(job, []), *overrides])


@pytest.mark.parametrize("group", ["target", "reference"])
def test_packaged_data_are_found_by_name_within_an_application(group):
    data = instantiate(load_config(group, "digits"))
    assert compose("screen").split == "train"  # the application's own Hydra is as it was
    assert data.num_classes == 10


def test_every_target_is_a_reference_too():
    assert known_configs("reference") == known_configs("target")
    for name in ("digits_0_4", "photo_patches"):
        assert composed("screen", f"reference={name}").reference == composed("screen", f"target={name}").target
    assert composed("screen", "reference=emoji").reference.name == "emoji_google"  # a file of its own


def test_configs_of_a_users_own_folder_are_listed_and_stand_in_for_ours(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").write_text("_target_: lightning_transfer.data.Digits\n")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/logme.yaml").write_text("logme: {}\n")
    assert "mine" in known_configs("reference", tmp_path)
    generated = lightning_transfer.conf.generated_configs
    assert generated("reference", tmp_path)["mine"] == {"defaults": ["/target/mine@_here_"]}
    assert "logme" in generated("metrics")
    assert "logme" not in generated("metrics", tmp_path)


def test_the_text_of_a_choice_holds_what_it_builds_on():
    text = read_config("reference", "digits_0_4")
    assert "image_size: null" in text
    assert "batch_size: 64" in text
    assert "defaults" not in text
    assert read_config("metrics", "logme") == "logme: {}\n"
    assert read_config("target", "nope") is None


def test_unknown_names_say_what_is_known():
    with pytest.raises(ValueError, match=r"Expected argument `zoo` to be one of .*efficientnet_lite.*'nope'"):
        load_config("zoo", "nope")
    assert known_configs("nothing") == []
