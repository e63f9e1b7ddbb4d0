"""`python -m hamshoot`: the command line, which can be stopped while it is still being loaded."""

import os
import signal
from typing import Any


def _leave(*_: Any) -> None:
    """Ctrl-C while libraries load: nothing has been begun, and a traceback says nothing."""
    os.write(2, b"hamshoot: stopped before there was a result; nothing was written\n")
    os._exit(1)


def main() -> None:
    """Entry point of the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from hamshoot.command.cli import main as run

    try:
        run()
    finally:  # all is said and done: what comes now must not say otherwise
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
