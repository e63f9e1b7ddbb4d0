"""Step and costate as C: compiled by the system's compiler, against the NumPy reference."""

import ctypes
import shutil
import subprocess

import casadi as ca
import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
DOUBLES = ctypes.POINTER(ctypes.c_double)


def compiled(path):
    if COMPILER is None:
        pytest.skip("no C compiler")
    library = path.with_suffix(".so")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror=implicit", str(path),
                    "-o", str(library), "-lm"], check=True)
    return library


def called(library, name, arguments, shapes):
    """Call a function by ctypes alone, as a program without CasADi would."""
    function, work = getattr(library, name), getattr(library, f"{name}_work")
    sizes = [ctypes.c_longlong() for _ in range(4)]
    assert work(*map(ctypes.byref, sizes)) == 0
    inputs = [np.asarray(a, dtype=float).ravel(order="F").copy() for a in arguments]
    outputs = [np.full(int(np.prod(shape)), np.nan) for shape in shapes]
    arg, res = (DOUBLES * (sizes[0].value + 1))(), (DOUBLES * (sizes[1].value + 1))()
    for into, arrays in ((arg, inputs), (res, outputs)):
        for k, array in enumerate(arrays):
            into[k] = array.ctypes.data_as(DOUBLES)
    iw = (ctypes.c_longlong * (sizes[2].value + 1))()
    w = (ctypes.c_double * (sizes[3].value + 1))()
    assert function(arg, res, iw, w, 0) == 0
    return [out.reshape(shape, order="F") for out, shape in zip(outputs, shapes, strict=True)]


@pytest.mark.parametrize(("activation", "bias", "integrator"), [
    ("relu", True, "euler"), ("smooth_relu", False, "euler"), ("smooth_relu", True, "rk4"),
    ("linear", True, "rk4"), ("leaky_relu", True, "euler"), ("gelu", False, "rk4")])
def test_compiled_step_and_costate_are_those_of_numpy(activation, bias, integrator, tmp_path):
    problem = teacher(activation, bias=bias, samples=3)
    method = hs.DirectMultipleShooting(layers=4, integrator=integrator)
    path = method.to_c(problem, tmp_path / "leaky.c")
    library = ctypes.CDLL(str(compiled(path)))
    head = path.read_text(encoding="utf-8").split("*/")[0]
    assert f"samples 3, {problem.sigma}, {'bias' if bias else 'no bias'}, {integrator}" in head
    assert ("epsilon is not used" in head) == (activation in ("linear", "gelu"))
    rng = np.random.default_rng(5)
    A, B = rng.standard_normal((2, *problem.initial_state.shape))
    W = rng.standard_normal(problem.control_shape)
    rho, leak, epsilon = 0.23, problem.effective_depth, problem.sigma.epsilon
    nodes = discrete.roll_out(problem, W[None], np.array([rho]), integrator, A)
    left = discrete.costates(problem, nodes, W[None], np.array([rho]), integrator, B)[0][0]
    (end,) = called(library, "step", (A, W, rho, leak, epsilon), [A.shape])
    np.testing.assert_allclose(end, nodes[-1], rtol=0, atol=1e-12)
    (back,) = called(library, "costate", (A, W, B, rho, leak, epsilon), [A.shape])
    np.testing.assert_allclose(back, left, rtol=0, atol=1e-12)


def test_casadi_loads_what_it_wrote(tmp_path):
    problem = teacher("smooth_relu", samples=3)
    method = hs.DirectMultipleShooting(layers=4)
    path = method.to_c(problem, tmp_path / "all.c",
                       ("step", "costate", "hamiltonian", "flow"))
    library = str(compiled(path))
    rng = np.random.default_rng(6)
    A, B = rng.standard_normal((2, *problem.initial_state.shape))
    settings = dict(effective_depth=3.0, activation=problem.sigma, bias=True)
    H = ca.external("hamiltonian", library)(A, B, 3.0, problem.sigma.epsilon)
    assert float(H) == pytest.approx(ham.hamiltonian(A, B, **settings), rel=1e-12)
    flow = ca.external("flow", library)(A, B, 3.0, problem.sigma.epsilon)
    for mine, reference in zip(flow, ham.flow(A, B, **settings), strict=True):
        np.testing.assert_allclose(mine.full(), reference, rtol=0, atol=1e-11)


def test_the_file_says_what_it_is_and_is_the_same_each_time(tmp_path):
    problem = teacher(samples=3)
    method = hs.DirectMultipleShooting(layers=4)
    first = method.to_c(problem, tmp_path / "a b.c", "step").read_text()
    assert "Width 4, samples 3, relu, bias, euler; W has 5 columns" in first
    assert "costate" not in first
    assert method.to_c(problem, tmp_path / "a b.c", ["step"]).read_text() == first


@pytest.mark.parametrize(("name", "functions", "says"), [
    ("a.cpp", ("step",), "ends in .c"), ("a.c", ("steps",), "functions: expected some of step"),
    ("a.c", (), "got none")])
def test_bad_names_are_refused(name, functions, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        hs.DirectMultipleShooting(layers=4).to_c(teacher(samples=3), tmp_path / name, functions)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such directory"):
        hs.DirectMultipleShooting(layers=4).to_c(teacher(samples=3), tmp_path / "no" / "a.c")
