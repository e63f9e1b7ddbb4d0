"""Progress: what it says, when, and how long it foretells."""

import io
import logging
import sys
import time

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.methods.search.basins import EFFORTS
from hamshoot.study import progress as module
from hamshoot.study.cpu_seconds import cpu_seconds
from hamshoot.study.forecast import (
    Forecast,
    epochs_forecast,
    expected_epochs,
    search_forecast,
    seconds_forecast,
)
from hamshoot.study.progress import Progress, shown


def problem():
    return teacher(samples=10, width=3, seed=0)


def record(stage="start 1/2, epsilon 0.5", seconds=1.0, stationarity=0.1):
    return hs.Record(3, 0.25, stationarity, seconds, stage)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        """As a terminal does."""
        return True


@pytest.fixture
def often(monkeypatch):
    """Lines every fifth of a second."""
    monkeypatch.setattr(module, "EVERY", 0.2)


# -- what is foretold ------------------------------------------------------------------------------


def test_a_forecast_is_the_work_left_in_the_seconds_so_far():
    forecast = Forecast(10.0, lambda record: 1.0)
    for second in range(1, 5):
        forecast.hear(record(seconds=float(second)))
    assert forecast.seconds == pytest.approx(6.0)


def test_nothing_is_foretold_at_first_nor_after_the_plan():
    forecast = Forecast(100.0, lambda record: None if record.stage == "end" else 3.0)
    forecast.hear(record())
    assert forecast.seconds is None
    forecast.hear(record())
    assert forecast.seconds is not None
    forecast.hear(record("end"))
    assert forecast.seconds is None


def test_epochs_of_a_training_add_up():
    optimizer, heard = hs.Adam(epochs=2000, sgd_epochs=400), []
    forecast = epochs_forecast(optimizer, 1)
    solution = hs.train(problem(), 6, optimizer=optimizer,
                        callback=lambda r: heard.append(forecast.hear(r)))
    # Trials of the rate after Adam count too; constant and decay share four fifths of theirs.
    assert solution.success
    assert 0.8 < forecast.done / expected_epochs(optimizer, 1) < 1.25


def test_epochs_expected_of_given_rates_and_schedules():
    assert expected_epochs(hs.SGD(rate=0.1, schedule="decay", epochs=100), 1) == 100
    assert expected_epochs(hs.SGD(rate=0.1, schedule="decay", epochs=100), 3) == 300
    assert expected_epochs(hs.SGD(rates=(0.1, 1.0), schedule="cosine", epochs=100), 1) == 200
    assert expected_epochs(hs.SGD(rate=0.1, epochs=100), 1) == pytest.approx(220)


def test_a_run_counts_on_and_another_begins_anew():
    forecast = epochs_forecast(hs.Adam(), 1)
    for stage in ("rate 0.1 decay, epoch 50/60", "rate 0.1 decay, epoch 55/60",
                  "rate 0.1 decay, then gradient descent at 0.2, epoch 60/60",
                  "rate 0.3 decay, epoch 50/60"):
        forecast.hear(record(stage))
    assert forecast.done == 50 + 5 + 50 + 50


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_search_is_planned_as_it_plans_itself(effort):
    method = hs.DirectSingleShooting(layers=6, effort=effort)
    forecast = search_forecast(problem(), method, None)
    assert forecast.total >= EFFORTS[effort].seconds
    forecast.hear(record("to the kink, epsilon 0.001"))
    assert forecast.done == 0
    forecast.hear(record("optimal control: reheated, epsilon 0.1"))
    assert forecast.done > 0


def test_where_nothing_is_searched_nothing_is_planned():
    method = hs.DirectSingleShooting(layers=6)
    assert search_forecast(problem(), method, np.zeros((6, 3, 4))) is None
    assert search_forecast(problem(), hs.DirectSingleShooting(start="path"), None) is None
    assert search_forecast(problem(), hs.DirectSingleShooting(optimizer="kronecker"), None) is None
    assert search_forecast(problem(), hs.IndirectShooting(), None) is None


def test_granted_seconds_run_down():
    forecast, began = seconds_forecast(0.4), time.process_time()
    while time.process_time() < began + 0.1:
        pass
    forecast.hear(record(seconds=2.0))  # twice as slow on the wall as it should be, ten times even
    assert forecast.seconds == pytest.approx(6.0, rel=0.1)


# -- what is shown ---------------------------------------------------------------------------------


def test_a_line_has_stage_objective_seconds_and_what_is_left(capsys):
    with Progress() as progress:
        progress.begin("", Forecast(4.0, lambda record: 1.0), 60.0)
        progress(record(seconds=10.0))
    line = capsys.readouterr().err
    assert line.startswith("start 1/2, epsilon 0.5: iteration 3, J 0.25, stationarity 1.0e-01, 0 s")
    assert "about 30 s left of this part" in line
    assert "at most 60 s" in line
    assert line.count("\n") == 1


def test_silence_of_the_solver_is_not_silence(often, capsys):
    with Progress() as progress:
        progress.begin("optimal control", None, None)
        time.sleep(0.9)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("optimal control: ") for line in lines)


def test_the_patient_say_nothing_of_what_is_short(capsys):
    with Progress(patient=True) as progress:
        progress.say("beginning")
        progress(record())
    assert capsys.readouterr().err == ""


def test_the_patient_say_it_all_when_it_takes_long(often, capsys):
    with Progress(patient=True) as progress:
        progress.say("the problem")
        progress(record())
        time.sleep(0.7)
        progress.say("a row")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "the problem"
    assert lines[1].startswith("start 1/2")
    assert lines[-1] == "a row"


def test_a_terminal_gets_a_live_line_that_goes_away(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        progress(record())
        time.sleep(0.4)
        progress.say("a line that stays")
    assert "start 1/2, epsilon 0.5: iteration 3" in stream.getvalue()
    assert "a line that stays" in stream.getvalue()


def test_the_callback_of_the_user_hears_and_stops():
    heard = []

    def stop(one):
        heard.append(one)
        return len(heard) == 2

    with shown(stop, verbose=True) as call:
        assert not call(record())
        assert call(record())
    with shown(stop, verbose=False) as call:
        assert call is stop


def test_solve_shows_its_progress_if_asked(capsys):
    quiet = hs.solve(problem(), layers=6, effort="quick")
    assert capsys.readouterr() == ("", "")
    loud = hs.solve(problem(), layers=6, effort="quick", verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "iteration 1, J " in err
    assert loud.objective == quiet.objective


def test_compare_shows_its_progress_if_asked(capsys):
    hs.compare(problem(), 6, optimizer=hs.Adam(epochs=50, sgd_epochs=10, rates=(0.1,)),
               verbose=True, method_options={"effort": "quick"})
    out, err = capsys.readouterr()
    assert out == ""
    assert "optimal control: start 1/2" in err


def test_the_log_gets_what_the_search_found(caplog):
    caplog.set_level(logging.INFO, logger="hamshoot")
    solution = hs.solve(problem(), layers=6)
    assert {one.name for one in caplog.records} == {"hamshoot"}
    assert "search: 2 starts, J " in caplog.text
    assert caplog.text.count("search: reheats, round") == len(solution.extra["reheat_rounds"])
    assert "solve: converged, J " in caplog.text


# -- seconds of CPU --------------------------------------------------------------------------------


def test_seconds_of_cpu_are_those_of_the_work():
    def work():
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return "done"

    result, seconds = cpu_seconds(work)
    assert result == "done"
    assert 0.2 <= seconds < 0.5
    assert cpu_seconds(lambda: time.sleep(0.2))[1] < 0.1


def test_compiling_does_not_count():
    import numba

    @numba.njit
    def fresh(x):
        total = 0.0
        for k in range(10):
            total += np.sin(x) + k
        return total

    began = time.process_time()
    _, seconds = cpu_seconds(lambda: fresh(1.0))
    assert seconds < 0.5 * (time.process_time() - began)


@pytest.mark.parametrize("effort", ["quick", "default"])
def test_a_geodesic_has_no_forecast_and_takes_an_effort(effort):
    problem = teacher("linear")
    assert search_forecast(problem, hs.IndirectShooting(effort=effort), None) is None
    assert hs.solve(problem, effort=effort).success
