"""An NLP solver in a child process: what cannot be interrupted can be ended.

fatrop has no iteration callback and no clock, and on badly scaled data it does not come back from
a single call. So it runs in a process of its own, which builds the same program once and then takes
calls over a pipe; whoever waits looks at the clock and at Ctrl-C, and ends the process.

``python -m hamshoot.methods.multiple_shooting.child`` is that process; nobody else runs it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.methods.multiple_shooting.nlp import MultipleShootingNLP, build_nlp
from hamshoot.methods.multiple_shooting.solver_messages import (
    plain_statistics,
    without_overconstrained,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Seconds between two looks at the clock.
LOOK = 0.05
#: Seconds granted to set up the program.
BEGINNING = 120.0
_LENGTH = struct.Struct("<Q")


class Answer(NamedTuple):
    """What a call of the solver gave.

    Attributes
    ----------
    x, lam : ndarray
    success : bool
    status : str
    iterations : int
    stats : dict
        All that the solver counted, as plain values.
    """

    x: NDArray
    lam: NDArray
    success: bool
    status: str
    iterations: int
    stats: dict[str, Any]


def called(nlp: MultipleShootingNLP, x: NDArray, lam: NDArray, parameters: NDArray) -> Answer:
    """Call the solver of a program from an iterate."""
    with without_overconstrained(nlp.overconstrained):
        result = nlp.solver(x0=x, lam_g0=lam, p=parameters, lbg=0, ubg=0)
    stats = nlp.solver.stats()
    x, lam = (np.asarray(result[key].full()).ravel() for key in ("x", "lam_g"))
    return Answer(x, lam, bool(stats["success"]), str(stats.get("return_status")),
                  int(stats.get("iter_count", 0)), plain_statistics(stats))


class Child:
    """The process, started at the first call and again after it was ended.

    Parameters
    ----------
    problem : TrainingProblem
    layers : int
    integrator, nlp_solver : str
    options : dict
        All that `casadi.nlpsol` gets.
    """

    def __init__(self, problem: TrainingProblem, layers: int, integrator: str, nlp_solver: str,
                 options: dict[str, Any]):
        self.program = problem, layers, integrator, nlp_solver, options
        self.process: subprocess.Popen | None = None

    def call(self, x: NDArray, lam: NDArray, parameters: NDArray, patience: float,
             look: Callable[[], bool]) -> Answer | None:
        """Call the solver; None where it did not come back.

        Parameters
        ----------
        x, lam, parameters : ndarray
            Iterate, multipliers and parameters of the program.
        patience : float
            Seconds after which it is given up.
        look : callable
            Asked every `LOOK` seconds; the process is ended where it says True.
        """
        if self.process is None:
            patience += BEGINNING
        try:
            process = self._begun()
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, (x, lam, parameters))
        except BrokenPipeError:  # it has died
            self.end()
            return None
        waiting = _Reader(process.stdout)
        until = time.monotonic() + patience
        while not waiting.over.wait(LOOK):
            if look() or time.monotonic() > until:
                self.end()
                return None
        if not waiting.answers:  # it died
            self.end()
            return None
        return Answer(*waiting.answers[0])

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what was not sent yet
                        pipe.close()
            self.process = None

    def _begun(self) -> subprocess.Popen:
        """The process, started in a session of its own if it does not run: Ctrl-C is ours alone."""
        if self.process is not None:
            return self.process
        home = str(Path(__file__).resolve().parents[3])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        assert self.process.stdin is not None
        _send(self.process.stdin, (os.getpid(), self.program))
        return self.process

    def __del__(self) -> None:
        if getattr(self, "process", None) is not None and sys is not None:
            self.end()


class _Reader:
    """Waits for one answer in a thread; none comes where the pipe was closed."""

    def __init__(self, pipe: IO[bytes]):
        self.pipe, self.over, self.answers = pipe, threading.Event(), list[Any]()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            self.answers.append(_receive(self.pipe))
        except (EOFError, OSError, ValueError):  # the process was ended, and its pipe closed
            pass
        finally:
            self.over.set()


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """One value; between a process and its own child alone."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    size = _LENGTH.unpack(head)[0]
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


# -- in the child ----------------------------------------------------------------------------------


def serve() -> None:
    """Build the program and answer calls until the pipe is closed."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the solver prints must not get among the answers
    parent, program = _receive(sys.stdin.buffer)
    _end_with(parent)
    nlp = build_nlp(*program)
    while True:
        try:
            x, lam, parameters = _receive(sys.stdin.buffer)
        except EOFError:
            return
        _send(out, tuple(called(nlp, x, lam, parameters)))


def _end_with(parent: int) -> None:
    """See that this process does not outlive the one that started it, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent and sys.platform != "win32":
        sys.exit(1)
