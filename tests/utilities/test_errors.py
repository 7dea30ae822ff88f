"""What is kept of an exception."""

import pytest

from lightning_transfer.utilities.errors import Failure, JobFailedError


@pytest.mark.parametrize(
    ("error", "bad_input"),
    [
        (ValueError("a\n  b\tc"), True),
        (FileNotFoundError(2, "none", "x"), True),
        (ModuleNotFoundError("no module"), True),
        (TypeError(), True),
        (RuntimeError("a b c"), False),
        (KeyError("name"), False),
        (JobFailedError("no result"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_kind_and_message_on_one_line(error, bad_input):
    failure = Failure.of(error)
    assert failure == Failure(type(error).__name__, " ".join(str(error).split()))
    assert failure.bad_input is bad_input
    assert "\n" not in str(failure)
    assert str(failure) == (f"{failure.kind}: {failure.message}" if str(error) else failure.kind)


def test_without_a_message_the_kind_stands_alone():
    assert str(Failure.of(TypeError())) == "TypeError"
    assert str(Failure.of(ValueError(" \n "))) == "ValueError"
