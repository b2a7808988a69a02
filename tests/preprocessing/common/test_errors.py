"""Errors that nobody foresaw say what and where, and not what they quote."""

import traceback

import polars as pl
import pytest

from preprocessing.common.errors import InputError, UserError, fault_of, without_values


def test_the_message_of_an_unforeseen_error_is_not_shown():
    texts = pl.Series("subject_id", ["patient 4711"])
    with pytest.raises(pl.exceptions.PolarsError, match="4711"):
        texts.cast(pl.Int64)
    with pytest.raises(UserError, match=r"InvalidOperationError in .* < test_errors\.py:\d+") as told, without_values():
        texts.cast(pl.Int64)
    assert "4711" not in "".join(traceback.format_exception(told.value))
    assert told.value.exit_status == 1


@pytest.mark.parametrize("error", [InputError("one sentence"), ImportError("a package"), KeyboardInterrupt()])
def test_errors_that_are_told_already_pass(error):
    with pytest.raises(type(error)) as told, without_values():
        raise error
    assert told.value is error


def test_a_fault_is_the_reason_of_the_system_or_a_kind(tmp_path):
    with pytest.raises(OSError, match="No such file") as told:
        (tmp_path / "4711").read_bytes()
    assert fault_of(told.value) == "No such file or directory"
    assert fault_of(ValueError("4711")) == "ValueError"
