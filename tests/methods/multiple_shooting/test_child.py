"""A solver that does not come back is ended: by the clock, by whoever asks, or when it dies."""

import os
import signal
import threading

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.multiple_shooting.child import Child
from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting


@pytest.fixture
def called():
    """A child for a small program, and the arguments of a call."""
    problem = problems.teacher("smooth_relu", samples=4, width=2)
    method = DirectMultipleShooting(layers=4, nlp_solver="fatrop")
    nlp = method.build(problem)
    steps = np.full(4, 0.25)
    x = np.zeros(nlp.solver.size1_in("x0"))
    lam = np.zeros(nlp.solver.size1_in("lam_g0"))
    child = Child(problem, 4, "euler", "fatrop", method._solver_options(problem))
    yield child, (x, lam, nlp.parameters(problem, steps, 0.1)), nlp
    child.end()


def test_the_child_gives_what_the_solver_gives(called):
    child, arguments, nlp = called
    answer = child.call(*arguments, 60.0, lambda: False)
    here = nlp.solver(x0=arguments[0], lam_g0=arguments[1], p=arguments[2], lbg=0, ubg=0)
    np.testing.assert_array_equal(answer.x, here["x"].full().ravel())
    np.testing.assert_array_equal(answer.lam, here["lam_g"].full().ravel())
    stats = nlp.solver.stats()
    assert (answer.success, answer.iterations) == (stats["success"], stats["iter_count"])
    assert child.call(*arguments, 60.0, lambda: False).iterations == answer.iterations


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
def test_what_hangs_is_ended_and_begun_again(called):
    child, arguments, _ = called
    assert child.call(*arguments, 60.0, lambda: False) is not None
    pid = child.process.pid
    os.kill(pid, signal.SIGSTOP)  # it does not answer any more
    assert child.call(*arguments, 0.2, lambda: False) is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert child.call(*arguments, 60.0, lambda: False) is not None
    os.kill(child.process.pid, signal.SIGSTOP)
    asked = []
    assert child.call(*arguments, 1e9, lambda: len(asked) > 2 or asked.append(1)) is None


def test_a_child_that_dies_is_an_answer_of_none(called):
    child, arguments, _ = called
    assert child.call(*arguments, 60.0, lambda: False) is not None
    child.process.kill()
    child.process.wait()
    assert child.call(*arguments, 60.0, lambda: False) is None
    assert child.call(*arguments, 60.0, lambda: False) is not None


def hard_on_fatrop(**options):
    """A table whose inputs were not standardised: one call of fatrop does not come back from it."""
    rng = np.random.default_rng(0)
    scale = 10 ** rng.uniform(5, 6)
    X, Y = rng.standard_normal((20, 3)) * scale, rng.standard_normal((20, 1))
    problem = hs.TrainingProblem(X, Y, effective_depth=3.0, weight_decay=3e-3, width=8)
    method = DirectMultipleShooting(layers=10, nlp_solver="fatrop", starts=1, warm_up=False,
                                    **options)
    return hs.solve(problem, method)


def test_fatrop_minds_the_time_limit():
    solution = hard_on_fatrop(time_limit=0.5)
    assert solution.status is hs.Status.TIME_LIMIT
    assert np.isfinite(solution.objective)


def test_fatrop_minds_ctrl_c():
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        solution = hard_on_fatrop(time_limit=60.0)
    except KeyboardInterrupt:  # before the first iterate
        return
    finally:
        timer.cancel()
    assert solution.status is hs.Status.INTERRUPTED


def test_more_starts_than_memory_holds_end_with_the_time_limit():
    problem = problems.teacher(samples=6, width=3)
    for method in (hs.DirectSingleShooting(layers=5, starts=2**32, time_limit=0.3),
                   hs.DirectSingleShooting(layers=5, starts=2**32, time_limit=0.3, start="path"),
                   hs.DirectMultipleShooting(layers=5, starts=2**32, time_limit=0.3)):
        solution = hs.solve(problem, method)
        assert solution.status is hs.Status.TIME_LIMIT
        assert solution.weights.shape == (5, 3, 4)
    trained = hs.train(problem, 5, starts=2**32, time_limit=0.3, optimizer=hs.Adam(rate=0.1))
    assert trained.status is hs.Status.TIME_LIMIT
