"""Ctrl-C, SIGTERM and SIGHUP, answered by what is at stake.

While a solver works the first of them lets the iteration end, and the best iterate is kept; Ctrl-C
once more aborts. While results are saved they wait. At any other time they end the command, with
one line. Batch systems send SIGTERM some seconds before they kill: it is treated as Ctrl-C is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hamshoot.solution.solution import Record
from hamshoot.study.progress import Progress


class Stopped(Exception):
    """A command that was asked to end before there was a result; says what is kept."""


def _numbers() -> list[signal.Signals]:
    """The signals that ask to end, but for a hang-up that `nohup` has switched off."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        numbers.append(hang_up)
    return numbers


@contextmanager
def answered(answer: Callable[..., Any]) -> Iterator[None]:
    """Have the signals answered by a handler, in the main thread, where alone they arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, answer) for number in _numbers()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def interrupt(*_: Any) -> None:
    """The answer outside of solving and saving: as Python has it to Ctrl-C."""
    raise KeyboardInterrupt


class Stoppable(Progress):
    """Progress whose first signal lets the iteration end and keeps the best; the second aborts.

    After `saving` neither does anything.
    """

    def __init__(self, patient: bool):
        super().__init__(self._answer, patient)
        self.stopping = self.saved = False

    def __enter__(self) -> Stoppable:
        self._signals = answered(self._interrupt)
        self._signals.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._signals.__exit__(None, None, None)

    def saving(self) -> None:
        """From now on results are saved: signals wait until that is done."""
        self.saved = True

    def _answer(self, _: Record) -> bool:
        return self.stopping

    def _interrupt(self, number: int, _: Any) -> None:
        """Batch systems repeat SIGTERM: only Ctrl-C a second time aborts."""
        if self.saved or (self.stopping and number != signal.SIGINT):
            return
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        line = "Stopping after this iteration; the best iterate is kept (Ctrl-C again aborts)."
        if self.live is not None or self.patient:
            self.say(line)
        else:  # print must not be entered twice, and a signal may come in the middle of one
            os.write(2, f"{line}\n".encode())
