"""Libraries that need not be there: what is said where one is asked for and missing."""

from __future__ import annotations


def missing(who: str, library: str, extra: str) -> ImportError:
    """The error to raise where a library is not installed.

    Parameters
    ----------
    who : str
        What needs it, as the user called it.
    library : str
    extra : str
        Name of the extra that installs it.
    """
    return ImportError(f'{who} needs {library}; install it with: pip install "hamshoot[{extra}]"')
