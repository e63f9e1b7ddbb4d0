"""Compiling: in few specialisations, kept where that is possible, told of, and by itself."""

import copy
import gc
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.dynamics import _compiling, _kernels
from hamshoot.dynamics.compiling import LEAST_SECONDS, Compilation
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.study.progress import Progress

PACKAGE = Path(hs.__file__).parent
#: A gradient, and what became of the kernel: times loaded from the cache, times compiled.
CHILD = """
import json, sys
import numpy as np
import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
X = np.arange(6.0).reshape(3, 2)
problem = hs.TrainingProblem(X, X, effective_depth=1.0, weight_decay=0.1, width=2,
                             activation="linear")
sweeps = EulerSweeps(problem, [0.5, 0.5])
value, gradient = sweeps.gradient(np.ones(sweeps.shape))
from hamshoot.dynamics import _kernels
stats = _kernels.gradient.stats
print(json.dumps([value, gradient.sum(), stats.cache_path, sum(stats.cache_hits.values()),
                  sum(stats.cache_misses.values())]))
"""


def child(package: Path, environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(package), **environment})


def said(process: subprocess.Popen) -> list:
    out, complaints = process.communicate(timeout=250)
    assert process.returncode == 0, complaints
    return json.loads(out)


def sweeps_of(**options) -> EulerSweeps:
    return EulerSweeps(problems.teacher(activation="smooth_relu", samples=5, **options),
                       np.full(4, 0.25))


def test_a_gradient_is_compiled_once_for_all_narrow_networks():
    """Data that cannot be written, wholes as numbers: none of it makes another specialisation."""
    for options in ({"bias": True}, {"bias": False}, {"effective_depth": 2}):
        sweeps = sweeps_of(**options)
        W = np.ones(sweeps.shape)
        W.flags.writeable = False
        sweeps.objective(np.array(W))
        sweeps.gradient(np.array(W))
    # Other losses and slopes below the kink, which other tests may have compiled, are others.
    plain = [kinds for kinds in _kernels.gradient.signatures
             if {str(kinds[k]) for k in (1, 7, 10)} == {"none"}]  # wide, below, criterion
    assert len(plain) == 1


def test_a_kernel_called_by_its_address_returns_what_it_returns():
    sweeps = sweeps_of()
    W = np.random.default_rng(0).normal(size=sweeps.shape)
    expected = _kernels.gradient(W, *sweeps.arguments)

    @_compiling.njit(error_model="numpy")
    def twice(place, arguments):
        return 2 * _compiling.call(place, arguments)

    assert twice(sweeps.place, (W, *sweeps.arguments)) == 2 * expected
    single = np.float32(1), *sweeps.arguments
    with pytest.raises(TypeError, match="other types"):
        twice(sweeps.place, (W, *single[1:-1], W[0]))


def test_addresses_do_not_leave_the_process():
    """Neither by pickle nor by copy: in another process they would be those of something else."""
    sweeps = sweeps_of()
    flow = HamiltonianFlow(2, 3, 1.0, sweeps.problem.sigma)
    state = np.random.default_rng(0).normal(size=(1, flow.size))
    end = flow(np.zeros(1), np.ones(1), state)[0]
    assert sweeps.place[0] > 0
    for each in (sweeps, flow):
        for other in (pickle.loads(pickle.dumps(each)), copy.copy(each)):
            assert not {"place", "_field"} & set(vars(other))
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(flow))(np.zeros(1), np.ones(1), state)[0], end)


def test_the_collector_rests_while_numba_compiles_and_then_goes_on():
    seen = []

    class Listener(_compiling.event.Listener):
        def on_start(self, event):
            pass

        def on_end(self, event):
            seen.append(gc.isenabled())

    with _compiling.event.install_listener("numba:compile", Listener()):
        _compiling.njit()(lambda x: x + 1)(1.0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    gc.disable()
    try:
        _compiling.njit()(lambda x: x + 2)(1.0)
        assert not gc.isenabled()  # whoever had switched it off has it off
    finally:
        gc.enable()


def test_long_compiling_is_told_once_to_the_log(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("hamshoot.dynamics.compiling.time.perf_counter", lambda: now[0])
    compilation = Compilation()
    with caplog.at_level(logging.INFO, logger="hamshoot"):
        for _ in range(3):
            compilation.begin()
            now[0] += 0.4 * LEAST_SECONDS
            compilation.begin()  # one within another is not counted twice
            assert compilation.under_way()
            now[0] += 0.2 * LEAST_SECONDS
            compilation.end("/a/cache")
            compilation.end("/a/cache")
            now[0] += 100.0  # between them something else is done
    assert not compilation.under_way()
    assert compilation.count == 6
    assert compilation.seconds == pytest.approx(1.8 * LEAST_SECONDS)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["compiling, once: 2 s so far; later runs find the code in /a/cache"]


def test_progress_says_that_compiling_is_what_takes_the_time(monkeypatch):
    compilation = Compilation()
    monkeypatch.setattr("hamshoot.study.progress.compilation", compilation)
    progress = Progress()
    assert progress.line().startswith("beginning")
    compilation.begin()
    assert progress.line().startswith("compiling, once: 0 s")
    compilation.end(None)
    assert progress.line().startswith("beginning")


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(monkeypatch):
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    @_compiling.njit(cache=True)
    def double(x):
        return 2 * x

    assert double(3.0) == 6.0
    assert double.stats.cache_path is None


#: A process that may write files of so many bytes and no larger ones: EFBIG in place of ENOSPC.
LIMITED = """
import resource, signal, sys
size = int(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
from hamshoot.dynamics._compiling import njit
@njit(cache=True)
def double(x):
    return 2 * x
print(double(3.0), sum(double.stats.cache_hits.values()), sum(double.stats.cache_misses.values()))
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_disk_that_is_full_and_a_damaged_file_end_nothing(tmp_path):
    (tmp_path / "small.py").write_text(LIMITED)

    def started(size):
        ended = subprocess.run(
            [sys.executable, tmp_path / "small.py", str(size)], text=True, timeout=250,
            capture_output=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent),
                                      "NUMBA_CACHE_DIR": str(tmp_path / "cache")})
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split(), ended.stderr.splitlines()

    found, lines = started(400)  # room for neither index nor code
    assert found == ["6.0", "0", "1"]
    assert len(lines) == 1
    assert "compiled code cannot be kept in" in lines[0]
    assert "File too large" in lines[0]
    assert started(10**9) == (["6.0", "0", "1"], [])
    assert started(10**9) == (["6.0", "1", "0"], [])
    for kind in ("nbi", "nbc"):
        for path in (tmp_path / "cache").rglob(f"*.{kind}"):
            path.write_bytes(path.read_bytes()[:20])
        assert started(10**9) == (["6.0", "0", "1"], [])  # made anew, and put in place
        assert started(10**9) == (["6.0", "1", "0"], [])


@pytest.mark.slow
def test_processes_that_start_at_once_fill_one_cache(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first = [said(process) for process in [child(PACKAGE.parent, environment) for _ in range(4)]]
    assert len({tuple(answer[:3]) for answer in first}) == 1
    *_, hits, misses = said(child(PACKAGE.parent, environment))
    assert (hits, misses) == (1, 0)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_an_installation_that_cannot_be_written_keeps_code_in_the_users_cache(tmp_path):
    """The folders are made read-only; a root user, whom that does not stop, is no test of it."""
    import shutil

    if os.geteuid() == 0:
        pytest.skip("root writes anywhere")
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "hamshoot", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [site, *filter(Path.is_dir, site.rglob("*"))]:
        folder.chmod(0o555)
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "home"),
                   "NUMBA_CACHE_DIR": ""}
    try:
        *_, place, hits, misses = said(child(site, environment))
        assert Path(place).is_relative_to(tmp_path / "home")
        assert (hits, misses) == (0, 1)
        assert said(child(site, environment))[-2:] == [1, 0]
    finally:
        for folder in [site, *filter(Path.is_dir, site.rglob("*"))]:
            folder.chmod(0o755)
