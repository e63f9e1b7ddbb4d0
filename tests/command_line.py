"""The command line, called in this process."""

import pytest

from hamshoot.command.cli import main


def run(capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err
