"""SciPy's own tests of `solve_bvp`, run with hamshoot's in its place.

Run ``python scipy_tests.py``: it loads the test file that is installed with SciPy (wheels have it,
some distributions leave it out), puts `hamshoot.bvp.solve_bvp` where SciPy's stood, runs every test
and prints a line each, with the reason where hamshoot is documented to differ. It takes a second or
two, and exits with 1 where a test fails that is not among those.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

from hamshoot.bvp import solve_bvp

#: Tests that hold SciPy's solver to what is not in its contract, and why ours does otherwise.
DIFFERENT = {
    "test_failures": "it expects that five nodes are too few for ÿ = y to 1e-5: of order 4 they "
                     "are, of order 8 three are enough",
}
#: Tests of SciPy's own parts, which call no solver.
PARTS = {"test_modify_mesh", "test_compute_fun_jac", "test_compute_bc_jac",
         "test_compute_jac_indices", "test_compute_global_jac"}  # fmt: skip


def scipy_tests() -> ModuleType | None:
    """SciPy's test module with our solver in it, or None where it is not installed."""
    try:
        spec = importlib.util.find_spec("scipy.integrate.tests.test_bvp")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.solve_bvp = solve_bvp
    return module


def tests_of(module: ModuleType) -> dict[str, Callable[[], None]]:
    """Its tests that call the solver, by name."""
    return {name: test for name, test in vars(module).items()
            if name.startswith("test_") and name not in PARTS}


def main() -> int:
    module = scipy_tests()
    if module is None:
        print("SciPy is installed without its tests.")
        return 1
    failed = 0
    for name, test in tests_of(module).items():
        try:
            test()
            print(f"{name}: passes")
        except AssertionError:
            if name in DIFFERENT:
                print(f"{name}: differs; {DIFFERENT[name]}")
            else:
                failed += 1
                print(f"{name}: fails\n{traceback.format_exc()}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
