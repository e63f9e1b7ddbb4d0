"""A network trained in PyTorch, certified here, finished here, and sent back.

A teacher's problem is trained with torch.optim.Adam, rate on a cosine, on the module that
`LeakyResNet.to_torch` makes and on its `objective`, from the identity with noise. `hs.certify`
says of the trained module how far it is from stationary, layer by layer. `LeakyResNet.polish` goes
on from its weights to a stationary point of the same network, the certificate says whether that is
a minimum, and `load_state_dict` puts it into the module: PyTorch then predicts what hamshoot does,
and whether Adam finds anything lower from there is seen.

Autograd takes the slope 0 for every activation that is exactly 0. At a stationary ReLU network
some are, with slopes between 0 and 1, so that autograd's gradient is not 0 there; Clarke's is.

Run ``python demos/13_train_in_pytorch_finish_here.py`` (needs the extra `torch`; a minute): it
draws figures/13_train_in_pytorch_finish_here.png and writes
results/13_train_in_pytorch_finish_here.json. ``--small`` takes seconds, and writes to ``--out
DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import dress, labelled, run, said, spread, verdicts

import hamshoot as hs

NAME = "13_train_in_pytorch_finish_here"
SETTINGS = {
    "full": dict(seeds=[0, 1, 2, 3, 4], layers=12, epochs=8000, rate=0.03, further=1000,
                 dims=[6, 2, 6], samples=30, width=6, effective_depth=3.0, weight_decay=3e-3),
    "small": dict(seeds=[0], layers=5, epochs=150, rate=0.03, further=30, dims=[3, 2, 3],
                  samples=8, width=3, effective_depth=2.0, weight_decay=3e-3),
}
#: Deviation of the noise on the first weights, rate of the further training as a share of
#: the first, and points of a curve.
NOISE, GENTLE, POINTS = 0.3, 0.01, 200
TRAINED, FINISHED = "network trained in PyTorch", "network finished here"


# -- the four steps --------------------------------------------------------------------------------


def start(problem: hs.TrainingProblem, layers: int, seed: int) -> hs.LeakyResNet:
    """The identity, W = (L̃ I, 0), with noise."""
    rows, columns = problem.control_shape
    noise = np.random.default_rng(seed).standard_normal((layers, rows, columns))
    weights = problem.effective_depth * np.eye(rows, columns) + NOISE * noise
    return hs.LeakyResNet.from_weights(problem, weights)


def train(
    module: torch.nn.Module, problem: hs.TrainingProblem, epochs: int, rate: float
) -> list[float]:
    """Adam on J over all samples; J of every epoch, that before it first."""
    X, Y = torch.tensor(np.array(problem.X)), torch.tensor(np.array(problem.Y))
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    values = []
    for _ in range(epochs):
        optimizer.zero_grad()
        J = module.objective(X, Y, problem.weight_decay)
        J.backward()
        optimizer.step()
        schedule.step()
        values.append(J.item())
    return [*values, module.objective(X, Y, problem.weight_decay).item()]


def of_certificate(proof: hs.Certificate) -> dict[str, Any]:
    """The rows of a certificate."""
    return {"objective": proof.objective, "stationarity": proof.stationarity,
            "clarke_residual": proof.clarke_residual, "second_order": proof.second_order,
            "kinks": proof.kinks, "holds": proof.holds,
            "reason": proof.reasons[0] if proof.reasons else "",
            "by_layer": list(proof.layer_stationarity)}


def one_seed(
    seed: int, layers: int, epochs: int, rate: float, further: int, **settings: Any
) -> dict[str, Any]:
    """Train, certify, finish, send back."""
    torch.set_num_threads(1)
    problem = hs.teacher_problem(test_samples=0, seed=seed, **settings)

    module = start(problem, layers, seed).to_torch()
    values = train(module, problem, epochs, rate)
    trained = hs.certify(module, problem)

    solution = hs.LeakyResNet.from_torch(module).polish(problem)
    finished = hs.certify(solution.to_network(), problem)

    network = solution.to_network()
    module.load_state_dict(network.to_torch().state_dict())
    X, Y = torch.tensor(np.array(problem.X)), torch.tensor(np.array(problem.Y))
    apart = np.abs(module(X).detach().numpy() - network.predict(problem.X)).max()
    module.zero_grad()
    J = module.objective(X, Y, problem.weight_decay)
    J.backward()
    autograd = float(module.weights.grad.norm())
    after = train(module, problem, further, GENTLE * rate)
    return {
        "seed": seed, "values": _thinned(values),
        "trained": {"status": "TRAINED", **of_certificate(trained)},
        "finished": {"status": solution.status.name, **of_certificate(finished)},
        "sent_back": {"apart": float(apart), "objective": J.item(), "autograd_gradient": autograd,
                      "lowest_after": min(after[1:]), "single": network.to_torch(
                          "float32").discrepancy.relative},
    }


def _thinned(values: list[float]) -> list[list[float]]:
    """Epochs and J at `POINTS` of them, denser at the beginning."""
    last = len(values) - 1
    at = np.unique(np.round(np.geomspace(1, last + 1, min(POINTS, last + 1))).astype(int)) - 1
    return [[int(k), values[k]] for k in at]


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    """All seeds."""
    fixed = {name: value for name, value in settings.items() if name != "seeds"}
    return {"torch": torch.__version__,
            "rows": each(one_seed, [{"seed": seed, **fixed} for seed in settings["seeds"]])}


# -- what was found --------------------------------------------------------------------------------


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    rows, ended = record["rows"], record["ended"]
    trained, finished, back = ([row[name] for row in rows]
                               for name in ("trained", "finished", "sent_back"))
    gains = [100 * (1 - f["objective"] / t["objective"])
             for t, f in zip(trained, finished, strict=True)]
    falls = [(f["objective"] - b["lowest_after"]) / f["objective"]
             for f, b in zip(finished, back, strict=True)]
    apart = [abs(b["objective"] / f["objective"] - 1)
             for f, b in zip(finished, back, strict=True)]
    lower = sum(fall > 1e-9 for fall in falls)
    return [
        f"{len(rows)} problem{'s' * (len(rows) > 1)}: {record['settings']['epochs']} epochs of "
        f"Adam in PyTorch ({record['torch']}) end at J = "
        f"{spread((t['objective'] for t in trained), '.6g')}.",
        f"The certificate holds for {sum(t['holds'] for t in trained)} of these modules; "
        f"{TRAINED}: {said(ended[TRAINED])}; Clarke residual "
        f"{spread(t['clarke_residual'] for t in trained)}, activations on the kink "
        f"{spread(t['kinks'] for t in trained)}.",
        f"Finishing lowers J by "
        f"{spread(gains)} %, to {spread((f['objective'] for f in finished), '.6g')}.",
        f"The certificate holds for {sum(f['holds'] for f in finished)} of {len(rows)}; "
        f"{FINISHED}: {said(ended[FINISHED])}; Clarke residual "
        f"{spread(f['clarke_residual'] for f in finished)}, activations on the kink "
        f"{spread(f['kinks'] for f in finished)}.",
        f"Second order of the finished networks: {verdicts(f['second_order'] for f in finished)}.",
        f"Back in the module, predictions are within {max(b['apart'] for b in back):.1e} of "
        f"hamshoot's own, and J agrees to a share of {max(apart):.1e}.",
        f"In single precision predictions differ by {max(b['single'] for b in back):.1e} of a "
        "target's scale at most.",
        f"Autograd's gradient at the finished networks has the norm "
        f"{spread(b['autograd_gradient'] for b in back)}: it takes the slope 0 for every "
        "activation that is exactly 0.",
        f"{record['settings']['further']} further epochs of Adam, at {100 * GENTLE:g} % of the "
        f"rate, find a J lower by more than a part in 10⁹ for {lower} of {len(rows)}"
        + (f", by a share of {max(falls):.1e} at most." if lower else "."),
    ]


def draw(record: dict[str, Any]) -> Any:
    """J over epochs above where it was finished, and the stationarity of every layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    palette = hs.plot.colours([TRAINED, FINISHED])
    names = {name: labelled(name, how) for name, how in record["ended"].items()}
    for k, row in enumerate(record["rows"]):
        epochs, J = np.array(row["values"]).T
        above = J - row["finished"]["objective"]
        shown = above > 0
        left.loglog(epochs[shown] + 1, above[shown], color=palette[TRAINED], lw=1.1, alpha=0.8,
                    label=f"Adam, {len(record['rows'])} seed{'s' * (len(record['rows']) > 1)}"
                    if k == 0 else None)
        for part, name, marker in (("trained", TRAINED, "o"), ("finished", FINISHED, "s")):
            values = np.maximum(row[part]["by_layer"], 1e-17)
            right.semilogy(np.arange(1, len(values) + 1), values, color=palette[name],
                           marker=marker, ms=3, lw=0.8, alpha=0.8,
                           label=names[name] if k == 0 else None)
    dress(left, "Training in PyTorch", "epoch",
          "J above that of the network finished here")
    dress(right, "What the certificate says of each layer", "layer",
          "‖W − L̃Bσ̂ᵀ‖ / max(1, ‖W‖)")
    right.axhline(1e-6, color="#777777", lw=0.9, ls="--")
    right.text(1, 1.6e-6, "bound of the certificate", color="#555555", fontsize=8, va="bottom")
    left.legend(frameon=False, fontsize=9)
    right.legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1, 0.4))
    return figure


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of networks by the name that sentences and figure call them."""
    return {TRAINED: [row["trained"] for row in record["rows"]],
            FINISHED: [row["finished"] for row in record["rows"]]}


def main(arguments: list[str] | None = None) -> None:
    """Run the demo."""
    run(NAME, __doc__, SETTINGS, study, findings, draw, arguments, networks=networks)


if __name__ == "__main__":
    main()
