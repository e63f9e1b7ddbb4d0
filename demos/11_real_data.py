"""Real data: is optimal control of a Leaky ResNet good for anything but theory?

Diabetes (442 patients, 10 numbers → progress after a year) and digits (1797 pictures of 8 × 8 → one
of ten), both shipped with scikit-learn, are split five times at random into training and test rows.
Four contestants: ridge regression; a Leaky ResNet of 10 layers by optimal control, from one start;
the same network by Adam at the best of its rates and schedules, from the same kind of start, a path
fit; and scikit-learn's MLP of equal width (L-BFGS, one or two hidden layers, no early stopping).
Each chooses its strength of regularisation (ridge and MLP: alpha; Leaky ResNet: λ) from five values
by the error on the same quarter of the training rows, and is fitted again on all of them. Both
Leaky ResNets are fitted there with every λ, so that they can be compared where J is the same
function.

Optimal control has a limit of seconds for each fit. Adam has a number of epochs that takes no less
on digits, and in every fit three rates with three schedules (constant, constant and then decay,
cosine) to choose from by J: on digits all of them in half of the epochs and the best rate of each
schedule in full, on diabetes, where epochs are cheap, the best two. What more time would bring it
is seen on the first split, at one λ, with ten times the epochs.

All scalings are fitted on training rows alone: diabetes by column, digits with one deviation for
all pixels and one for all classes. The Leaky ResNets and ridge minimise the squared error, the MLP
on digits the cross-entropy. Ranks are those of the stable energies, γ₀ = 1e-3, which need no
costate: the median of −2H/L̃ over the layers, and the least cost of identity. A fit that converged
on a smoothed network, or that its seconds end, is not an optimal one: how the fits ended is said.

Needs scikit-learn (``pip install scikit-learn``). Run ``python demos/11_real_data.py`` (about
forty minutes on one core; it goes on where it was interrupted): it draws
figures/11_real_data.png and writes results/11_real_data.json. ``--small`` takes seconds, and
writes to ``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import common
import numpy as np

import hamshoot as hs
from hamshoot.problem.readers import Scaling

NAME = "11_real_data"
GAMMA0 = 1e-3
#: A singular value of A_p counts as a direction above this share of the largest.
SHARE = 0.1
#: Adam is given this many times the epochs, once.
LONGER = 10
#: One method is ahead of another if it is in at least this share of the splits, and its median is
#: lower by this much; objectives that differ by less than so much count as the same.
CLEAR, MARGIN, SAME = 0.8, 0.01, 1e-4
RIDGE, CONTROL, DESCENT, MLP = ("ridge regression", "Leaky ResNet, optimal control",
                                "Leaky ResNet, Adam", "scikit-learn's MLP")
METHODS = (RIDGE, CONTROL, DESCENT, MLP)
LEAKY = (CONTROL, DESCENT)
SHORT = {RIDGE: "ridge", CONTROL: "optimal control", DESCENT: "Adam", MLP: "the MLP"}
DATA = ("diabetes", "digits")
UNIT = {"diabetes": "RMSE", "digits": "% wrong"}
SETTINGS = {
    "full": dict(
        seeds=(0, 1, 2), layers=10, effective_depth=3.0,
        diabetes=dict(training=332, width=12, decays=(0.01, 0.03, 0.06, 0.1, 0.2), longer=0.03,
                      seconds=5.0, rates=(0.03, 0.1, 0.3), finalists=2, epochs=3000,
                      ridge=(1.0, 10.0, 30.0, 100.0, 300.0), mlp=(1.0, 3.0, 10.0, 30.0, 100.0),
                      mlp_iterations=1000),
        digits=dict(training=1000, width=72, decays=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1), longer=1e-2,
                    seconds=6.0, rates=(0.01, 0.03, 0.1), finalists=1, epochs=400,
                    ridge=(1.0, 10.0, 30.0, 100.0, 300.0), mlp=(0.01, 0.1, 0.3, 1.0, 3.0),
                    mlp_iterations=300)),
    "small": dict(
        seeds=(0, 1), layers=4, effective_depth=2.0,
        diabetes=dict(training=60, width=5, decays=(0.03, 0.2), longer=0.03, seconds=0.2,
                      rates=(0.03, 0.1), finalists=2, epochs=100, ridge=(1.0, 30.0),
                      mlp=(1.0, 30.0), mlp_iterations=50),
        digits=dict(training=100, width=14, decays=(0.01, 0.1), longer=0.01, seconds=0.2,
                    rates=(0.03,), finalists=1, epochs=50, ridge=(1.0, 30.0), mlp=(0.1, 1.0),
                    mlp_iterations=50)),
}


# -- data ------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Scaled inputs and targets of some rows, the scaling of the targets, and their classes."""

    X: np.ndarray
    Y: np.ndarray
    scaling: Scaling
    classes: bool


def loaded(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (one-hot for classes) as scikit-learn has them."""
    from sklearn import datasets

    if data == "digits":
        X, labels = datasets.load_digits(return_X_y=True)
        return X, np.eye(10)[labels]
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return X, y[:, None]


def parted(data: str, fit: np.ndarray, other: np.ndarray) -> tuple[Rows, Rows]:
    """Rows to fit and others, scaled by the former."""
    X, Y = loaded(data)
    classes = data == "digits"
    kind = "common" if classes else "columns"
    inputs, targets = (Scaling.fit(values[fit], kind, name, [str(k) for k in range(values.shape[1])]
                                   ) for name, values in (("X", X), ("Y", Y)))
    return tuple(Rows(inputs.apply(X[rows]), targets.apply(Y[rows]), targets, classes)
                 for rows in (fit, other))


def errors(predicted: np.ndarray, rows: Rows) -> tuple[float, float]:
    """RMSE in the user's units, or percent of wrong classes; mean squared error in scaled units."""
    predicted = predicted.reshape(rows.Y.shape)
    squared = float(np.mean(np.sum((predicted - rows.Y) ** 2, axis=1)))
    if rows.classes:
        wrong = np.argmax(predicted, axis=1) != np.argmax(rows.Y, axis=1)
        return float(100 * np.mean(wrong)), squared
    return float(np.sqrt(squared) * rows.scaling.scale[0]), squared


# -- contestants -----------------------------------------------------------------------------------


class Fit(NamedTuple):
    """Predictions for scaled inputs, and the solution and the MLP's layers where there are any."""

    predict: Any
    solution: hs.Solution | None = None
    hidden: int | None = None


def ridge(rows: Rows, alpha: float) -> Fit:
    from sklearn.linear_model import Ridge

    return Fit(Ridge(alpha=alpha).fit(rows.X, rows.Y).predict)


def mlp(rows: Rows, alpha: float, hidden: int, width: int, iterations: int, seed: int) -> Fit:
    """Classifier or regressor; predictions are in scaled units, as those of the others."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if rows.classes else MLPRegressor
    model = kind(hidden_layer_sizes=(width,) * hidden, alpha=alpha, solver="lbfgs",
                 max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that did not suffice
        model.fit(rows.X, np.argmax(rows.Y, axis=1) if rows.classes else rows.Y[:, 0])
    if not rows.classes:
        return Fit(model.predict, hidden=hidden)

    def predict(X: np.ndarray) -> np.ndarray:
        chances = np.zeros((len(X), rows.Y.shape[1]))
        chances[:, model.classes_] = model.predict_proba(X)
        return rows.scaling.apply(chances)

    return Fit(predict, hidden=hidden)


def problem_of(rows: Rows, decay: float, own: dict[str, Any], settings: dict[str, Any],
               seed: int) -> hs.TrainingProblem:
    return hs.TrainingProblem(
        rows.X, rows.Y, effective_depth=settings["effective_depth"], weight_decay=decay,
        width=own["width"], lift="orthonormal", readout="orthonormal", seed=seed)


def leaky(method: str, rows: Rows, decay: float, own: dict[str, Any], settings: dict[str, Any],
          seed: int) -> Fit:
    """Leaky ResNet of one λ: by optimal control, or the best of Adam's rates and schedules."""
    problem, layers = problem_of(rows, decay, own, settings, seed), settings["layers"]
    if method == CONTROL:
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=layers, starts=1, reheats=0, polish=False, seed=seed,
            time_limit=own["seconds"]))
    else:
        solution = hs.train(problem, layers, seed=seed, optimizer=hs.Adam(
            rates=own["rates"], finalists=own["finalists"], epochs=own["epochs"], sgd_epochs=0))
    return Fit(solution.to_network().predict, solution)


def fits(method: str, rows: Rows, own: dict[str, Any], settings: dict[str, Any],
         seed: int) -> Iterator[tuple[float, Fit, float]]:
    """Strength, fit and seconds of all that a method has to choose from."""
    strengths = own[{RIDGE: "ridge", MLP: "mlp"}.get(method, "decays")]
    for strength in strengths:
        for hidden in (1, 2) if method == MLP else (None,):
            clock = time.perf_counter()
            if method == RIDGE:
                fit = ridge(rows, strength)
            elif method == MLP:
                fit = mlp(rows, strength, hidden, own["width"], own["mlp_iterations"], seed)
            else:
                fit = leaky(method, rows, strength, own, settings, seed)
            yield strength, fit, time.perf_counter() - clock


# -- what is measured ------------------------------------------------------------------------------


def divided(data: str, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and of the test part."""
    order = np.random.default_rng([seed, DATA.index(data)]).permutation(len(loaded(data)[0]))
    return order[:count], order[count:]


def split(data: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """All fits of all methods on one split of one data set, and spectra at the strongest λ."""
    own = settings[data]
    training, test = divided(data, seed, own["training"])
    quarter = len(training) // 4
    inner = parted(data, training[quarter:], training[:quarter])
    outer = parted(data, training, test)
    rows, curves = [], []
    for method in METHODS:
        table, found = [], []
        for (strength, tried, _), (_, fit, seconds) in zip(
                fits(method, inner[0], own, settings, seed),
                fits(method, outer[0], own, settings, seed), strict=True):
            error, squared = errors(tried.predict(inner[1].X), inner[1])
            table.append({"data": data, "seed": seed, "method": method, "strength": strength,
                          "validation_error": error, "validation_squared": squared,
                          **scored(fit, *outer), "seconds": seconds, "chosen": False})
            found.append(fit)
        best = min(range(len(table)), key=lambda k: (table[k]["validation_error"],
                                                     table[k]["validation_squared"]))
        table[best]["chosen"] = True
        rows += table
        if method in LEAKY and seed == settings["seeds"][0]:
            strongest = max(range(len(table)), key=lambda k: table[k]["strength"])
            solution = found[strongest].solution
            curves.append({"data": data, "seed": seed, "method": method,
                           "strength": table[strongest]["strength"], "p": solution.p.tolist(),
                           "A": solution.spectra()[0].tolist()})
    return {"fits": rows, "curves": curves}


def longer(data: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Adam with many more epochs, on the first split at one λ."""
    own, seed = settings[data], settings["seeds"][0]
    training, test = parted(data, *divided(data, seed, own["training"]))
    clock = time.perf_counter()
    fit = leaky(DESCENT, training, own["longer"], own | {"epochs": LONGER * own["epochs"]},
                settings, seed)
    seconds = time.perf_counter() - clock
    return {"data": data, "seed": seed, "strength": own["longer"], "seconds": seconds,
            **scored(fit, training, test)}


def scored(fit: Fit, training: Rows, test: Rows) -> dict[str, Any]:
    """Errors on both parts, and what a Leaky ResNet is like."""
    row: dict[str, Any] = {}
    for name, rows in (("train", training), ("test", test)):
        row[f"{name}_error"], row[f"{name}_squared"] = errors(fit.predict(rows.X), rows)
    row["r2"] = float(1 - row["test_squared"] / np.sum(np.var(test.Y, axis=0)))
    if fit.hidden is not None:
        row["hidden"] = fit.hidden
    return row if fit.solution is None else row | described(fit.solution)


def described(solution: hs.Solution) -> dict[str, Any]:
    """Objective, norm and rank estimates."""
    problem, A = solution.problem, solution.representations
    e = solution.energies(GAMMA0)
    hamiltonian = np.median(e.stable_kinetic + e.stable_potential)
    values = np.linalg.svd(A, compute_uv=False)
    counts = np.sum(values > SHARE * values[:, :1], axis=1)
    return {
        "objective": solution.objective, "loss": solution.loss,
        "parameter_norm": solution.parameter_norm, "stationarity": solution.stationarity,
        "status": solution.status.name, "iterations": solution.nit,
        **{key: solution.extra[key] for key in ("rate", "schedule") if key in solution.extra},
        "rank": float(-2 * hamiltonian / problem.effective_depth),
        "least_coi": float(e.stable_cost_of_identity.min()),
        "directions_in": int(counts[0]), "directions_least": int(counts.min()),
    }


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    needed()
    jobs = [dict(data=data, seed=seed, settings=settings)
            for data in DATA for seed in settings["seeds"]]
    parts = each(split, jobs)
    long_runs = each(longer, [dict(data=data, settings=settings) for data in DATA])
    return {"scikit_learn": importlib.metadata.version("scikit-learn"),
            "fits": [row for part in parts for row in part["fits"]],
            "curves": [curve for part in parts for curve in part["curves"]],
            "longer": long_runs}


def needed() -> None:
    """End with one sentence where scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise SystemExit("11_real_data.py needs scikit-learn, for its data and as a contestant; "
                         "install it with: pip install scikit-learn")


# -- findings --------------------------------------------------------------------------------------


def of(record: dict[str, Any], data: str, method: str, **wanted: Any) -> list[dict[str, Any]]:
    """Fits of one data set and method, those with the values wanted."""
    return [row for row in record["fits"] if row["data"] == data and row["method"] == method
            and all(row[k] == v for k, v in wanted.items())]


def chosen(record: dict[str, Any], data: str, method: str) -> list[dict[str, Any]]:
    """The chosen fit of every split, in the order of the seeds."""
    return [of(record, data, method, seed=seed, chosen=True)[0]
            for seed in record["settings"]["seeds"]]


def middle(rows: Iterable[dict[str, Any]], key: str = "test_error") -> float:
    return float(np.median([row[key] for row in rows]))


def pairs(record: dict[str, Any], data: Iterable[str] = DATA) -> list[tuple[dict, dict]]:
    """Optimal control and Adam on the same split with the same λ."""
    return [(row, other) for name in data for row in of(record, name, CONTROL)
            for other in of(record, name, DESCENT, seed=row["seed"], strength=row["strength"])]


def wins(record: dict[str, Any], data: str, method: str, other: str) -> tuple[int, int, int]:
    """Splits in which a method's test error is lower, in which it is higher, and all."""
    both = list(zip(chosen(record, data, method), chosen(record, data, other), strict=True))
    return (sum(a["test_error"] < b["test_error"] for a, b in both),
            sum(a["test_error"] > b["test_error"] for a, b in both), len(both))


def standing(record: dict[str, Any], data: str, method: str, other: str) -> str:
    """Whether a method is ahead of another, by the splits and by the medians."""
    lower, higher, count = wins(record, data, method, other)
    own, its = (middle(chosen(record, data, m)) for m in (method, other))
    if lower >= CLEAR * count and own < (1 - MARGIN) * its:
        return "ahead of"
    return "behind" if higher >= CLEAR * count and its < (1 - MARGIN) * own else "level with"


def ends(both: list[tuple[dict, dict]]) -> tuple[int, int, int]:
    """Pairs in which the first objective is lower, the same, and higher."""
    gaps = [a["objective"] / b["objective"] - 1 for a, b in both]
    lower, higher = sum(gap < -SAME for gap in gaps), sum(gap > SAME for gap in gaps)
    return lower, len(gaps) - lower - higher, higher


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    whole = (beside, how_ended, same_objective, patience, generalises, regularised, ranks, effort,
             verdict)
    return [*(scores(record, data) for data in DATA), *(sentence(record) for sentence in whole)]


def scores(record: dict[str, Any], data: str) -> str:
    """Test errors of all methods, and the lowest median."""
    words = []
    for method in METHODS:
        rows = chosen(record, data, method)
        also = f", R² {middle(rows, 'r2'):.2f}" if data == "diabetes" else ""
        words.append(f"{SHORT[method]} {common.spread([r['test_error'] for r in rows])}{also}")
    medians = {m: middle(chosen(record, data, m)) for m in METHODS}
    best, second = sorted(METHODS, key=medians.get)[:2]
    what = ("root mean squared test error" if data == "diabetes"
            else "percent of the test pictures taken for another digit")
    return (f"{data.capitalize()}, {what}: {'; '.join(words)}. The lowest median is that of "
            f"{SHORT[best]}, {relative(medians[best], medians[second])} that of {SHORT[second]}.")


def relative(value: float, other: float) -> str:
    """By how many percent a value lies below or above another."""
    if value == other:
        return "the same as"
    share = abs(value / other - 1) if other else 1.0
    return f"{share:.1%} {'below' if value < other else 'above'}"


def beside(record: dict[str, Any]) -> str:
    """Optimal control beside each of the others, split by split."""
    words = []
    for data in DATA:
        own = middle(chosen(record, data, CONTROL))
        counts = []
        for other in (RIDGE, DESCENT, MLP):
            lower, _, count = wins(record, data, CONTROL, other)
            counts.append(f"{SHORT[other]} in {lower} of {count} "
                          f"(median {relative(own, middle(chosen(record, data, other)))})")
        words.append(f"on {data} below {', '.join(counts)}")
    return f"Split by split the test error of optimal control is {'; '.join(words)}."


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Leaky ResNets by method and data."""
    return {f"{SHORT[method]} on {data}": of(record, data, method)
            for data in DATA for method in LEAKY}


def how_ended(record: dict[str, Any]) -> str:
    words = [f"{name}, {common.said(how)}" for name, how in record["ended"].items()]
    return f"How the Leaky ResNets ended: {'. '.join(words)}."


def same_objective(record: dict[str, Any]) -> str:
    """Who minimises J better at the same λ, and by how much."""
    words = []
    for data in DATA:
        both = pairs(record, (data,))
        lower, same, _ = ends(both)
        shares = []
        for decay in sorted({a["strength"] for a, _ in both}):
            ratio = np.median([b["objective"] / a["objective"] for a, b in both
                               if a["strength"] == decay])
            shares.append(f"{ratio:.4g} at λ = {decay:g}")
        words.append(f"on {data} optimal control ends lower in {lower} of {len(both)} fits "
                     f"and level in {same}, and Adam's J is, in median, so many times its own: "
                     f"{', '.join(shares)}")
    return f"With the same λ (level: to {SAME:g} of J), {'; '.join(words)}."


def patience(record: dict[str, Any]) -> str:
    """What many more epochs bring Adam."""
    words = []
    for row in record["longer"]:
        control, adam = (of(record, row["data"], method, seed=row["seed"],
                            strength=row["strength"])[0] for method in LEAKY)
        words.append(
            f"on {row['data']} at λ = {row['strength']:g} its J goes from {adam['objective']:.4g} "
            f"to {row['objective']:.4g} in {row['seconds']:.2g} s, optimal control has "
            f"{control['objective']:.4g} after {control['seconds']:.2g} s; test errors "
            f"{adam['test_error']:.3g}, {row['test_error']:.3g} and {control['test_error']:.3g} "
            f"({UNIT[row['data']]})")
    return f"Given {LONGER} times the epochs, on the first split, Adam: {'; '.join(words)}."


def generalises(record: dict[str, Any]) -> str:
    """Whether the lower J has the lower test error."""
    words, all_pairs = [], []
    for data in DATA:
        both = [pair for pair in pairs(record, (data,)) if not ends([pair])[1]]
        agree = sum((a["objective"] < b["objective"]) == (a["test_squared"] < b["test_squared"])
                    for a, b in both)
        all_pairs.append(agree / max(1, len(both)))
        words.append(f"{agree} of {len(both)} fits on {data}")
    answer = ("yes" if min(all_pairs) > 0.75 else "no" if max(all_pairs) < 0.5
              else "not as a rule" if max(all_pairs) <= 0.75 else "it depends on the data")
    return (f"Where the objectives at a λ differ, does the lower one have the lower squared test "
            f"error? In {' and in '.join(words)}: {answer}.")


def regularised(record: dict[str, Any]) -> str:
    """What the weakest and the chosen λ do to test error and norm."""
    words = []
    for data in DATA:
        weakest = min(record["settings"][data]["decays"])
        for method in LEAKY:
            weak = of(record, data, method, strength=weakest)
            best = chosen(record, data, method)
            values = common.listed(sorted({row["strength"] for row in best}))
            words.append(
                f"{SHORT[method]} on {data} chose {values}, with median ∫‖W‖² "
                f"{middle(best, 'parameter_norm'):.3g} and {middle(best, 'train_error'):.3g} "
                f"({UNIT[data]}) in training against {middle(best):.3g} in test; at λ = "
                f"{weakest:g} it has {middle(weak, 'parameter_norm'):.3g}, "
                f"{middle(weak, 'train_error'):.3g} and {middle(weak):.3g}")
    return f"λ: {'; '.join(words)}."


def ranks(record: dict[str, Any]) -> str:
    """Rank estimates, and directions that survive the narrowest layer."""
    words = []
    for data in DATA:
        strongest = max(record["settings"][data]["decays"])
        for rows, where in (
            (chosen(record, data, CONTROL), "at the chosen λ"),
            (of(record, data, CONTROL, strength=strongest), f"at λ = {strongest:g}"),
            (of(record, data, DESCENT, strength=strongest), "where Adam has"),
        ):
            words.append(
                f"{f'{data} ' if where.endswith('chosen λ') else ''}{where} "
                f"{middle(rows, 'rank'):.2f} and {middle(rows, 'least_coi'):.2f}, with "
                f"{middle(rows, 'directions_least'):.0f} of {middle(rows, 'directions_in'):.0f} "
                "directions")
    return ("Median of −2H/L̃ without costate and of the least cost of identity for optimal "
            f"control, and how many singular values of A_p exceed {SHARE:g} of the largest where "
            f"they are fewest, of those at p = 0: {'; '.join(words)}.")


def effort(record: dict[str, Any]) -> str:
    """Seconds of one fit, and how stationary the Leaky ResNets are."""
    words = []
    for data in DATA:
        times = ", ".join(f"{SHORT[m]} {middle(of(record, data, m), 'seconds'):.2g} s"
                          for m in METHODS)
        still = ", ".join(f"{SHORT[m]} {middle(of(record, data, m), 'stationarity'):.1g}"
                          for m in LEAKY)
        rows = of(record, data, CONTROL)
        late = sum(row["status"] == "TIME_LIMIT" for row in rows)
        words.append(f"{data} {times}; stationarity {still}; optimal "
                     f"control was ended by its {record['settings'][data]['seconds']:g} seconds in "
                     f"{late} of {len(rows)}")
    return (f"Median effort of one fit, Adam with all its rates: {'; '.join(words)}.")


def verdict(record: dict[str, Any]) -> str:
    """What the method is good for and what not, from the numbers."""
    words, worth = [], []
    for data in DATA:
        against = {other: standing(record, data, CONTROL, other) for other in (RIDGE, DESCENT, MLP)}
        words.append(f"on {data} " + ", ".join(f"{how} {SHORT[other]}"
                                               for other, how in against.items()))
        if against[RIDGE] == against[MLP] == "ahead of":
            worth.append(data)
    both = pairs(record)
    lower, same, higher = ends(both)
    factors = [middle(of(record, data, CONTROL), "seconds")
               / middle(of(record, data, MLP), "seconds") for data in DATA]
    still = sum(a["stationarity"] < b["stationarity"] for a, b in both)
    ranked, by_adam = (sum(row["rank"] > 0 for row in rows) for rows in zip(*both, strict=True))
    good = ("Good for low objectives" if higher <= (1 - CLEAR) * len(both) + 1e-9 and lower > higher
            else "Not even sure of the lower objective")
    alone = ("no data set here" if not worth else "both data sets" if len(worth) == len(DATA)
             else f"{worth[0]} only")
    return (f"Verdict (ahead and behind: in at least {CLEAR:.0%} of the splits and by {MARGIN:.0%} "
            f"of the median test error): optimal control is {'; '.join(words)}. {good}: at the "
            f"same λ it ends below Adam in {lower} of {len(both)} fits and level in {same}, and "
            f"nearer to stationary in {still}. As a predictor it takes "
            f"{factors[0]:.2g} (diabetes) and {factors[1]:.2g} (digits) times the seconds of an "
            f"MLP, and is ahead of both ridge and the MLP on {alone}. −2H/L̃ without costate is "
            f"positive, so that it can be read as a rank, in {ranked} of its fits and in "
            f"{by_adam} of Adam's.")


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """A row a data set: test errors by method, over λ, and singular values along p."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12.5, 7.6), layout="constrained")
    axes = fig.subplots(2, 3)
    palette = hs.plot.colours(METHODS)
    for (first, second, third), data, letters in zip(axes, DATA, ("abc", "def"), strict=True):
        unit = "RMSE" if data == "diabetes" else "pictures wrong, %"
        dots(first, record, data, palette)
        common.dress(first, f"({letters[0]}) {data}: each split, and the median", "",
                     f"test {unit}")
        first.grid(visible=False, axis="x")
        over_decay(second, record, data, palette)
        common.dress(second, f"({letters[1]}) {data}: over the weight decay", r"$\lambda$", unit)
        spectra(third, record, data, letters[2])
    legends = [ax.get_legend_handles_labels() for ax in axes[1, 1:]]
    handles, labels = ([*a, *b] for a, b in zip(*legends, strict=True))
    fig.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return fig


def dots(ax: Any, record: dict[str, Any], data: str, palette: dict[str, str]) -> None:
    """Test errors of the chosen fits; grey lines join a split."""
    columns = np.array([[row["test_error"] for row in chosen(record, data, m)] for m in METHODS])
    shifts = np.linspace(-0.16, 0.16, columns.shape[1]) if columns.shape[1] > 1 else np.zeros(1)
    for values, shift in zip(columns.T, shifts, strict=True):
        ax.plot(np.arange(len(METHODS)) + shift, values, color="#bbbbbb", lw=0.8, zorder=1)
    for k, (method, marker) in enumerate(zip(METHODS, "sod^", strict=True)):
        ax.scatter(k + shifts, columns[k], s=34, marker=marker, color=palette[method], zorder=3,
                   edgecolor="white", linewidth=0.6)
        ax.hlines(np.median(columns[k]), k - 0.32, k + 0.32, color=palette[method], lw=2.2,
                  zorder=2)
    ax.set_xticks(range(len(METHODS)), [m.replace(", ", ",\n").replace(" reg", "\nreg").replace(
        "scikit-learn's ", "scikit-learn's\n") for m in METHODS], fontsize=8)


def over_decay(ax: Any, record: dict[str, Any], data: str, palette: dict[str, str]) -> None:
    """Test error over λ for both Leaky ResNets, training error dashed, the others as levels."""
    decays = sorted(record["settings"][data]["decays"])
    for method, marker in zip(LEAKY, "od", strict=True):
        for key, style, what in (("test_error", "-", "test"), ("train_error", ":", "training")):
            values = [[row[key] for row in of(record, data, method, strength=d)] for d in decays]
            ax.plot(decays, [np.median(v) for v in values], style, marker=marker, ms=5,
                    color=palette[method], label=f"{method}, {what}: median and range")
            ax.fill_between(decays, [min(v) for v in values], [max(v) for v in values],
                            color=palette[method], alpha=0.13, lw=0)
    for method, style in ((RIDGE, "--"), (MLP, "-.")):
        ax.axhline(middle(chosen(record, data, method)), color=palette[method], ls=style, lw=1.3,
                   label=f"{method}, test: median")
    ax.set_xscale("log")
    ax.set_xticks(decays, [f"{d:g}" for d in decays])
    ax.set_xticks([], minor=True)


def spectra(ax: Any, record: dict[str, Any], data: str, letter: str) -> None:
    """Singular values of A_p along p at the strongest λ, first split, the largest darkest."""
    seed = record["settings"]["seeds"][0]
    for curve in record["curves"]:
        if (curve["data"], curve["seed"], curve["method"]) != (data, seed, CONTROL):
            continue
        values = np.array(curve["A"])
        for column, shade in zip(values.T, np.linspace(0, 0.78, values.shape[1]), strict=True):
            ax.semilogy(curve["p"], column, color=str(shade), lw=1.1)
        top = values.max()
        ax.plot(curve["p"], SHARE * values[:, 0], color="#E69F00", lw=1.8, ls="--",
                label=f"{SHARE:g} of the largest singular value")
        ax.set_ylim(2e-3 * top, 1.5 * top)
        ax.set_xlim(0, 1)
        common.dress(ax, f"({letter}) {data}: optimal control, split {seed}, "
                         f"$\\lambda$ = {curve['strength']:g}",
                     "depth $p$", "singular values of $A_p$")


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, SETTINGS, study, findings, draw, arguments,
               networks=networks)


if __name__ == "__main__":
    main()
