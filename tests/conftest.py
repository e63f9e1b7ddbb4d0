"""What all tests share."""

import signal
from dataclasses import replace

import pytest

from hamshoot.methods.search.basins import EFFORTS

#: CPU seconds of the default search in tests: which of many minima it finds matters to none but
#: those that ask for an effort by name, and a tenth of it passes through all its parts.
SEARCH_SECONDS = 0.15


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_an_exception():
    """Python's own answer to Ctrl-C: a shell's background jobs start with it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def short_searches():
    """The default effort, cut short."""
    before = EFFORTS["default"]
    EFFORTS["default"] = replace(before, seconds=SEARCH_SECONDS)
    yield
    EFFORTS["default"] = before
