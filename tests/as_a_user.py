"""What somebody else's program looks like to mypy; CI checks it against the installed wheel."""

import numpy as np

import hamshoot as hs

X = np.random.default_rng(0).normal(size=(20, 3))
problem = hs.TrainingProblem(X, X[:, :1], effective_depth=3.0, weight_decay=3e-3, width=4)
solution: hs.Solution = hs.solve(problem, layers=8, effort="quick")
network: hs.LeakyResNet = solution.to_network()
certificate: hs.Certificate = hs.certify(solution)
text: str = f"{solution.objective:.6g} {solution.status.name} {certificate.holds}"
error: float = network.error(X, X[:, :1])
print(text, error)
