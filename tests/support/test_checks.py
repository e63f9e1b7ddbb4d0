"""What messages repeat of bad input is short, and numbers are told as people write them."""

import os
from pathlib import Path

import numpy as np
import pytest

from hamshoot.support.checks import (
    MOST_REPEATED,
    brief,
    check_count,
    check_not_negative,
    check_positive,
    check_regular,
    finite,
    plain,
)


@pytest.mark.parametrize("value", ["x" * 10**6, list(range(10**5)), b"y" * 700, "é" * 59, "\n" * 90,
                                   {k: k for k in range(900)}, (1,) * 70])
def test_a_long_value_is_cut(value):
    assert len(brief(value)) <= MOST_REPEATED
    assert brief(value)[:20] == repr(value)[:20]


def test_a_short_value_is_whole_and_a_huge_integer_is_counted():
    assert brief("relu") == "'relu'"
    assert brief(10**400) == "an integer of 401 digits"
    assert brief(-(10**5000)) == "an integer of 5001 digits"


def test_numbers_beyond_doubles_are_not_finite_and_refused():
    assert finite(1e308)
    assert finite(np.float32(2))
    assert not finite(10**400)
    assert not finite(float("nan"))
    for check in (check_positive, check_not_negative):
        for value in (10**400, float("inf"), float("nan"), "1", True, None, -1):
            with pytest.raises(ValueError, match="tol: expected"):
                check("tol", value)
    with pytest.raises(ValueError, match="layers: expected an integer >= 1"):
        check_count("layers", -(10**400), 1)
    check_not_negative("noise", 0)


@pytest.mark.parametrize(("value", "text"), [
    (31671.4, "31670"), (12.3456, "12.35"), (0.00123456, "0.001235"), (1e12, "1e+12"), (0.0, "0"),
    (-250000.0, "-250000"), (float("nan"), "nan")])
def test_four_digits_without_an_exponent(value, text):
    assert plain(value) == text


def test_only_regular_files_pass(tmp_path):
    (tmp_path / "file").write_text("x")
    os.symlink(tmp_path / "file", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    for good in ("file", "link"):
        check_regular(tmp_path / good, "a file")
    for path, words in (
            (tmp_path, "expected a file, got a directory"), (tmp_path / "no", "no such file"),
            (tmp_path / "file" / "below", "no such file"), (tmp_path / "pipe", "got a pipe"),
            (Path("/dev/null"), "got a pipe or a device"),
            (tmp_path / ("x" * 600), "cannot be read"), (Path("a\x00b"), "cannot be read")):
        with pytest.raises(ValueError, match=words):
            check_regular(path, "a file")
