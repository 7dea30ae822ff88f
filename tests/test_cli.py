"""The command line, mostly as a process of its own, from a folder that is not the repository."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from _cli import TINY, exit_code, run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_overview(capsys, arguments):
    assert exit_code(*arguments) == 0
    text = capsys.readouterr().out
    for job in ("screen", "relate", "finetune"):
        assert job in text


@pytest.mark.parametrize("job", ["screen", "relate", "finetune"])
def test_help_of_a_job_shows_examples_and_choices(capsys, job):
    assert exit_code(job, "--help") == 0
    text = capsys.readouterr().out
    assert f"lightning-transfer {job} " in text
    assert "efficientnet_lite0" in text
    assert "photo_patches" in text


def test_help_of_a_choice_shows_its_values(capsys):
    assert exit_code("screen", "target=image_folder", "--help") == 0
    assert "root: ???" in capsys.readouterr().out
    assert exit_code("screen", "--help", "target=image_foldr") == 2
    assert "did you mean 'image_folder'?" in capsys.readouterr().err


def test_help_lists_the_configs_of_a_folder(capsys, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").touch()
    assert exit_code("relate", "--help", "--config-dir", str(tmp_path)) == 0
    assert capsys.readouterr().out.count("|mine|") == 2  # as target and as reference


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom lightning_transfer.cli import main\n"
        "try:\n    main(['screen', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'lightning', 'hydra', 'matplotlib', 'pandas', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("lightning-transfer 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scren",), "unknown job 'scren'; did you mean 'screen'\\? known jobs are screen, relate, finetune"),
        (("screen", "target=nope"), "unknown target 'nope'; known are .*digits.*photo_patches"),
        (("screen", "backbone=nope"), "unknown backbone 'nope'; known are .*efficientnet_lite0"),
        (("screen", "metrics=nope"), "unknown metrics 'nope'; known are all, default, .*logme"),
        (("screen", "zoo=nope"), "unknown zoo 'nope'; known are .*efficientnet_lite"),
        (("screen", "reference=nope"), "unknown reference 'nope'"),
        (("screen", "experiment=ray", "-m"), r"unknown hydra/launcher 'ray'; .*pip install lightning-transfer\[ray\]"),
        (("screen", "nope=3"), "nope"),
        (("screen", "a==b"), "Error parsing override"),
        (("screen", "rank_by=nope", *TINY), "Expected argument `rank_by`"),
        (("screen", "resume=nowhere", *TINY), "There is no leaderboard `nowhere`"),
        (("screen", "metrics=[logme,nope]"), "unknown metrics 'nope'; known are all, default, .*logme"),
        (("screen", "metrics=[]"), "metrics has no value: add metrics=NAME"),
        (("screen", "~target"), "target has no value"),
        (("screen", "+metrics.logme=5", "target=digits"), "`metrics` to hold a dict of options for 'logme', but got 5"),
        (("screen", "error_bars=abc", *TINY), "`error_bars` to be an integer of at least 0, but got 'abc'"),
        (("screen", "error_bars=[1]", *TINY), "`error_bars` to be an integer"),
        (("screen", "max_samples=abc", "target=digits"), "`max_samples` to be an integer of at least 1, but got 'abc'"),
        (("screen", "target=image_folder", "target.root=5"), "`root` to be a path, but got 5"),
        (("screen", "+target.nope=5"), "target: .*unexpected keyword argument 'nope'"),
        (("screen", "backbone=efficientnet_lite0", "backbone.seed=abc", *TINY), "efficientnet_lite0: .*`seed`"),
        (("screen", "backbone=efficientnet_lite0", "+backbone.nope=1", *TINY), "efficientnet_lite0: .*'nope'"),
        (
            ("screen", "backbone=program", "backbone.path=nowhere.pt2", "backbone.input_shape=[1,8,8]", *TINY),
            r"There is no program file `nowhere\.pt2`",
        ),
        (("screen", "target=idx"), "target.root has no value: add target.root=VALUE"),
        (("screen", "backbone=timm"), "backbone.model_name has no value"),
        (
            ("screen", "backbone=[efficientnet_lite0,efficientnet_lite9]", "target=digits"),
            "did you mean efficientnet_lite",
        ),
        (("screen", "+trainer.nope=3", *TINY), "trainer: .*nope"),
        (("screen", "target._target_=os.system", "zoo=efficientnet_lite"), "`_target_: os.system` is not allowed"),
        (("screen", "--experimental-rerun=x.pickle"), "reads a pickle"),
        (("relate", "target=digits"), "reference"),
        (("finetune", "target=nope"), "unknown target 'nope'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(in_process, capsys, arguments, message):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lightning-transfer: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in captured.err


def test_a_missing_extra_says_how_to_install_it(in_process, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert exit_code("screen", "backbone=timm", "backbone.model_name=resnet18", *TINY) == 2
    assert "pip install lightning-transfer[timm]" in capsys.readouterr().err


def test_bugs_keep_their_traceback_when_asked(tmp_path):
    done = run(tmp_path, "screen", "target=idx", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
