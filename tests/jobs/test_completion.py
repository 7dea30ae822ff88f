"""Completion in a shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from lightning_transfer.jobs.completion import SCRIPTS, complete


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", {"screen ", "list ", "--version "}),
        ("scr", {"screen "}),
        ("screen ta", {"target="}),
        ("screen max_", {"max_samples="}),
        ("screen target=dig", {"digits ", "digits_0_4 ", "digits_5_9 "}),
        ("screen target=digits metrics=[logme,h_sc", {"[logme,h_score", "[logme,h_score_shrunk"}),
        ("screen backbone=efficientnet_lite0,efficientnet_lite2_", {"efficientnet_lite0,efficientnet_lite2_random "}),
        ("relate reference=usp", {"usps "}),
        ("screen target=image_folder target.ro", {"target.root="}),
        ("finetune optimizer.l", {"optimizer.lr="}),
        ("finetune --conf", {"--config-dir "}),
        ("nojob ta", set()),
        ("report out", set()),  # files: left to the shell
        ("screen target.root=", set()),
    ],
)
def test_words(line, words):
    found = set(complete(f"lightning-transfer {line}"))
    assert found == words or (line == "" and words <= found)


def test_configs_of_ones_own(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").touch()
    assert complete(f"lightning-transfer screen --config-dir {tmp_path} target=mi") == ["mine "]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shells_take_the_scripts(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, and only its own parser can check its script")
    subprocess.run([shell, "-n"], input=SCRIPTS[shell], text=True, check=True)


def test_bash_completes(tmp_path):
    program = tmp_path / "lightning-transfer"
    program.write_text("#!/bin/sh\nprintf 'digits \\ndigits_0_4 \\n'\n")
    program.chmod(0o755)
    lines = (
        f"PATH={tmp_path}:$PATH\n{SCRIPTS['bash']}\nCOMP_LINE='lightning-transfer screen target=di'; COMP_POINT=99\n"
        "_lightning_transfer; printf '<%s>' \"${COMPREPLY[@]}\""
    )
    assert (
        subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True).stdout
        == "<digits ><digits_0_4 >"
    )
