"""What somebody else's program looks like to mypy; CI checks it against the installed wheel."""

import numpy as np

import hamshoot as hs


def solved(problem: hs.TrainingProblem, effort: hs.names.EffortName = "quick") -> hs.Solution:
    """A function of one's own, whose argument takes the names that hamshoot does."""
    return hs.solve(problem, layers=8, effort=effort, tol=1e-8)


X = np.random.default_rng(0).normal(size=(20, 3))
problem = hs.TrainingProblem(X, X[:, :1], effective_depth=3.0, weight_decay=3e-3, width=4)
solution: hs.Solution = solved(problem)
network: hs.LeakyResNet = solution.to_network()
certificate: hs.Certificate = hs.certify(solution)
text: str = f"{solution.objective:.6g} {solution.status.name} {certificate.holds}"
error: float = network.error(X, X[:, :1])
options: hs.names.IpoptOptions = {"ipopt.tol": 1e-10, "ipopt.linear_solver": "mumps"}
method = hs.DirectMultipleShooting(layers=8, integrator="rk4", solver_options=options)
nonzeros: int = method.diagnostics(problem).jacobian.nonzeros
more: dict[str, float] = {"tol": 1e-6}
print(text, error, nonzeros, method.solver_options, more, hs.diagnose(solution).worst(1)[0].name)
