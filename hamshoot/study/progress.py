"""Progress of whatever takes long: a live line on a terminal, plain lines elsewhere.

On standard error, with the stage, J, the seconds so far and an estimate of those left. A clock of
its own writes it, so that a stage which tells of no iteration for a while is not silent either.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hamshoot.dynamics.compiling import compilation
from hamshoot.solution.solution import Callback, Record
from hamshoot.study.forecast import Forecast

EVERY = 2.0  # seconds between plain lines


class Progress:
    """A callback that shows what it hears, inside a ``with``.

    Parameters
    ----------
    inner : callable, optional
        Hears every record too; what it returns is returned.
    patient : bool
        Say nothing at all before two seconds have passed: short runs are silent.
    """

    def __init__(self, inner: Callback | None = None, patient: bool = False):
        self.inner, self.patient = inner, patient
        self.live: Any = None
        self.record: Record | None = None
        self.title = ""
        self.forecast: Forecast | None = None
        self.limit: float | None = None
        self.began = self.part_began = self.heard = time.monotonic()
        self.shown = -float("inf")
        self._kept: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Progress:
        self.began = self.part_began = time.monotonic()
        if self.patient:
            self.shown = self.began
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True,
                             get_renderable=self._renderable)
            self.live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._over.set()
        if self.live is not None:
            self.live.stop()
        else:
            self._ticker.join()

    def __call__(self, record: Record) -> bool | None:
        """Receive one record."""
        if self.forecast is not None:
            self.forecast.hear(record)
        self.record, self.heard = record, time.monotonic()
        if self.live is None and self.heard - self.shown >= EVERY:
            self._write()
        return None if self.inner is None else self.inner(record)

    def begin(self, title: str, forecast: Forecast | None, limit: float | None) -> None:
        """Announce a part: what it is called, what is planned of it, and its time limit."""
        self.title, self.forecast, self.limit = title, forecast, limit
        self.record, self.part_began = None, time.monotonic()

    def say(self, line: str) -> None:
        """Print a line that stays; a patient one waits for the first line of progress."""
        if self.patient and self.shown <= self.began:
            self._kept.append(line)
        elif self.live is not None:
            self.live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def line(self) -> str:
        """What is shown now."""
        now, record = time.monotonic(), self.record
        if compilation.under_way():
            return f"compiling, once: {now - self.began:.0f} s"
        if record is None:
            return f"{self.title or 'beginning'}: {now - self.began:.0f} s"
        if record.objective != record.objective:  # nothing but how it stands
            return f"{record.stage}, {now - self.began:.0f} s{self._left(now)}"
        stationarity = ("" if record.stationarity != record.stationarity
                        else f", stationarity {record.stationarity:.1e}")
        return (f"{record.stage or 'iterating'}: iteration {record.iteration}, J "
                f"{record.objective:.8g}{stationarity}, {now - self.began:.0f} s"
                f"{self._left(now)}")

    def _left(self, now: float) -> str:
        """How long it will take yet, where that can be said."""
        words = []
        if self.forecast is not None and self.forecast.seconds is not None:
            left = max(0.0, self.forecast.seconds - (now - self.heard))
            words.append(f"about {_duration(left)} left of this part")
        if self.limit is not None:
            words.append(f"at most {_duration(max(0.0, self.limit - (now - self.part_began)))}")
        return "".join(f", {word}" for word in words)

    def _write(self) -> None:
        with self._lock:
            self.shown = time.monotonic()
            kept, self._kept = self._kept, []
            for line in (*kept, self.line()):
                print(line, file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(0.2):
            if time.monotonic() - max(self.shown, self.began) >= EVERY:
                self._write()

    def _renderable(self) -> Any:
        from rich.text import Text

        return Text(self.line(), overflow="ellipsis", no_wrap=True)


@contextmanager
def shown(callback: Callback | None, verbose: bool) -> Iterator[Callback | None]:
    """The callback, told on standard error too where that is asked for."""
    if not verbose or isinstance(callback, Progress):
        yield callback
        return
    with Progress(callback) as progress:
        yield progress


def begin(callback: Callback | None, title: str, forecast: Forecast | None,
          limit: float | None) -> None:
    """Announce a part where the callback is a `Progress`."""
    if isinstance(callback, Progress):
        callback.begin(title, forecast, limit)


def named(name: str, callback: Callback | None) -> Callback | None:
    """A callback that is told the name of a part in the stage of its records."""
    if callback is None:
        return None

    def call(record: Record) -> bool | None:
        stage = f"{name}: {record.stage}" if record.stage else name
        return callback(Record(record.iteration, record.objective, record.stationarity,
                               record.seconds, stage))

    return call


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
