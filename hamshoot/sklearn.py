"""Optimal Leaky ResNets as scikit-learn estimators, for pipelines and searches over parameters.

>>> from hamshoot.sklearn import LeakyResNetClassifier, LeakyResNetRegressor
>>> model = LeakyResNetRegressor(effective_depth=3.0, weight_decay=3e-3)
>>> model.fit(X, y).predict(X)                                             # doctest: +SKIP
>>> print(model.solution_, model.certificate_)                             # doctest: +SKIP

An extra: ``pip install "hamshoot[sklearn]"``. What `fit` minimises is J of
`hamshoot.TrainingProblem`, a loss and the weight decay λ/(2L̃)∫‖W‖². `fit` takes
``sample_weight``: a sample of weight 2 is one given twice, in the loss, the standardisation and the
search. A classifier fits the one-hot classes by least
squares unless ``loss="cross_entropy"``. Then its outputs are no likelihoods: they estimate the
probabilities of the classes, may lie outside [0, 1] and are not calibrated. That is why there is a
`decision_function` and no ``predict_proba``, which cross-entropy has;
`sklearn.calibration.CalibratedClassifierCV` makes probabilities of it.
"""

from __future__ import annotations

import numbers
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hamshoot.methods.single_shooting.method import DirectSingleShooting
from hamshoot.optimality.certificate import certify
from hamshoot.problem.arguments import count, positive
from hamshoot.problem.losses import softmax
from hamshoot.problem.readers import Scaling
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status
from hamshoot.study.solve import solve

try:
    from joblib import effective_n_jobs
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError(
        "hamshoot.sklearn needs scikit-learn >= 1.6; "
        'install it with: pip install "hamshoot[sklearn]"'
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from hamshoot.network.leaky_resnet import LeakyResNet
    from hamshoot.optimality.certificate import Certificate
    from hamshoot.support.names import ActivationName, EffortName, LossName, ScalingName

__all__ = ["LeakyResNetClassifier", "LeakyResNetRegressor"]

#: Bounds of the default width.
LEAST_WIDTH, MOST_WIDTH = 8, 16
#: The default λ is this times L̃: ten times that of the command line, to predict rather than to
#: interpolate.
DECAY_SHARE = 1e-2
#: Its advice in place of the solver's, whose starts are no parameters here.
COLLAPSED = (
    "The network gives the same output for all samples; use a smaller weight_decay or "
    "effective_depth, unless there is nothing to learn."
)

Self = TypeVar("Self", bound="_LeakyResNetEstimator")


class _LeakyResNetEstimator(BaseEstimator):
    """What regressor and classifier share; see `LeakyResNetRegressor`."""

    _certificate: Certificate | None

    def __init__(
        self,
        effective_depth: float = 3.0,
        weight_decay: float | None = None,
        width: int | None = None,
        layers: int | None = None,
        *,
        activation: ActivationName = "relu",
        epsilon: float | None = None,
        negative_slope: float | None = None,
        loss: LossName = "squared",
        huber_delta: float | None = None,
        lift_decay: float | None = None,
        readout_decay: float | None = None,
        bias: bool = True,
        standardize: bool | ScalingName = True,
        effort: EffortName = "quick",
        polish: bool = False,
        tol: float = 1e-6,
        max_iter: int = 10_000_000,
        time_limit: float | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.effective_depth = effective_depth
        self.weight_decay = weight_decay
        self.width = width
        self.layers = layers
        self.activation = activation
        self.epsilon = epsilon
        self.negative_slope = negative_slope
        self.loss = loss
        self.huber_delta = huber_delta
        self.lift_decay = lift_decay
        self.readout_decay = readout_decay
        self.bias = bias
        self.standardize = standardize
        self.effort = effort
        self.polish = polish
        self.tol = tol
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def certificate_(self) -> Certificate:
        """The certificate of `solution_`, see `hamshoot.certify`; computed when first asked for.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        if self._certificate is None:
            self._certificate = certify(self.solution_)
        return self._certificate

    def _solve(self: Self, X: NDArray, Y: NDArray, classes: tuple[str, ...] | None,
               weights: NDArray | None) -> Self:
        """Pose and solve the problem of X (N, d_in) and Y (N, d_out), and keep what was found."""
        seed = self._seed()
        depth = positive("effective_depth", self.effective_depth)
        method = DirectSingleShooting(
            layers=default_layers(depth) if self.layers is None else self.layers,
            effort=self.effort, polish=self.polish, tol=self.tol,
            max_iter=self.max_iter, time_limit=self.time_limit, seed=seed,
            workers=effective_n_jobs(self.n_jobs))
        data = (X, Y, None) if weights is None else distinct(X, Y, weights)
        problem = self._problem(*data, classes)
        # Large networks are not solved with weights: rows given twice stay two there.
        if weights is None and method.optimizer_for(problem) == "lbfgs":
            data = distinct(X, Y, np.ones(len(X)))
            if len(data[0]) < len(X):
                problem = self._problem(*data, classes)
        guess = self._warm(problem) if self.warm_start else None
        solution = solve(problem, method, initial_guess=guess, verbose=bool(self.verbose))
        self.solution_, self._certificate = solution, None
        self.network_: LeakyResNet = solution.to_network()
        self.n_iter_ = max(1, solution.nit)
        if solution.status is Status.INTERRUPTED:
            # No callback stops this solve, so it was Ctrl-C, which the solver answers with its best
            # iterate: a search over parameters must not go on with the next fit.
            raise KeyboardInterrupt
        if not solution.success:
            collapsed = solution.status is Status.COLLAPSED
            warnings.warn(f"{solution.status.name.lower()}: "
                          f"{COLLAPSED if collapsed else solution.message}",
                          ConvergenceWarning, stacklevel=3)
        return self

    def _problem(self, X: NDArray, Y: NDArray, weights: NDArray | None,
                 classes: tuple[str, ...] | None) -> TrainingProblem:
        """The training problem, in the user's units, with sizes from the data."""
        depth = positive("effective_depth", self.effective_depth)
        decay = DECAY_SHARE * depth if self.weight_decay is None else self.weight_decay
        standardize = "varying" if self.standardize is True else self.standardize
        width = default_width(X, Y) if self.width is None else count("width", self.width, 1)
        scaled = [values if not standardize or (k and classes is not None)
                  else Scaling.fit(values, "varying", "XY"[k], [], weights).apply(values)
                  for k, values in enumerate((X, Y))]
        names = getattr(self, "feature_names_in_", None)
        return TrainingProblem(
            X, Y, effective_depth=depth, weight_decay=decay, width=width,
            activation=self.activation, epsilon=self.epsilon,
            negative_slope=self.negative_slope, loss=self.loss, huber_delta=self.huber_delta,
            lift_decay=self.lift_decay, readout_decay=self.readout_decay, bias=self.bias,
            sample_weights=weights,
            standardize=standardize, classes=classes,
            lift=_lift(scaled[0], width, weights), readout=_readout(scaled[1], width, weights),
            input_names=None if names is None else tuple(names))

    def _seed(self) -> int:
        """An integer stands for itself; None and generators give one, as in scikit-learn."""
        state: Any = self.random_state
        if isinstance(state, numbers.Integral):
            return count("random_state", state, 0)
        return int(check_random_state(state).randint(np.iinfo(np.int32).max))

    def _warm(self, problem: TrainingProblem) -> Solution | None:
        """The solution of the last `fit`, where it is a network of the same sizes."""
        before: Solution | None = getattr(self, "solution_", None)
        if before is None:
            return None
        for name in ("width", "bias", "d_in", "d_out"):
            was, now = getattr(before.problem, name), getattr(problem, name)
            if was != now:
                warnings.warn(f"warm_start: the last fit had {name} {was}, this one has {now}; it "
                              "starts anew", UserWarning, stacklevel=4)
                return None
        return before

    def _outputs(self, X: ArrayLike) -> NDArray:
        """Predictions of the network (K, d_out), of checked rows."""
        check_is_fitted(self)
        return self.network_.predict(validate_data(self, X, dtype=np.float64, reset=False))


class LeakyResNetRegressor(RegressorMixin, _LeakyResNetEstimator):
    """Regression by an optimal Leaky ResNet.

    Quick by default: `layers` is small, the search short, and a ReLU network ends at the optimum of
    one smoothed with ε = 1e-3. ``effort="default", polish=True`` searches longer and goes on to
    ReLU itself, with the second-order test (`hamshoot.DirectSingleShooting`).

    Parameters
    ----------
    effective_depth : float
        L̃ > 0.
    weight_decay : float, optional
        λ > 0; default 0.01 L̃.
    width : int, optional
        w; default the largest number of columns (inputs that vary; targets), at least 8 and at most
        16. Data of more columns than the width enter and leave by their principal directions, the
        eigenvectors of their covariance, as lift and readout.
    layers : int, optional
        L > L̃; default 2 L̃, rounded up, at least 4.
    activation : str
    epsilon, negative_slope : float, optional
    loss : {"squared", "huber", "cross_entropy"}
    huber_delta : float, optional
        As of `hamshoot.TrainingProblem`; cross-entropy is for classifiers.
    lift_decay, readout_decay : float, optional
        With one of these the lift or the readout is learned, with this weight decay.
    bias : bool
    standardize : {True, False, "columns", "varying", "common"}
        As in `hamshoot.TrainingProblem`. True is "varying": every column to mean 0 and deviation 1,
        and inputs that are constant in training are ignored by the network. One-hot classes are
        left as they are.
    effort : {"quick", "default", "thorough"}
        How long the search for a basin goes on.
    polish : bool
        Whether ReLU is carried to its exact optimum and tested for second order.
    tol : float
        Bound on the stationarity.
    max_iter : int
        Iterations of all starts and stages together.
    time_limit : float, optional
        Seconds for a fit; where one comes into effect, the result depends on the machine.
    warm_start : bool
        Whether `fit` goes on from the solution of the last one, in place of the search: along a
        path of λ, say, by ``set_params(weight_decay=…)``. L̃, layers and data may change too; where
        width, bias or columns do, it warns and starts anew.
    random_state : int, RandomState or None
        Of the search. None draws from NumPy's global state; the default is a fixed seed, so that
        the same data give the same network.
    n_jobs : int, optional
        Threads of the search, as joblib counts them (None is 1, -1 all cores). The answer does not
        depend on it.
    verbose : bool
        Show the progress on standard error.

    Attributes
    ----------
    solution_ : hamshoot.Solution
        With its problem, in the user's units, and its history.
    network_ : hamshoot.LeakyResNet
        Predicts.
    certificate_ : hamshoot.Certificate
        What `hamshoot.certify` says of the solution, computed on first access. What was only
        smoothed (``polish=False``) is certified as a stationary point of the smoothed network.
    n_iter_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has names of columns.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        Where the solver did not converge; the best iterate is kept, and `solution_.status` says
        how it ended.

    Notes
    -----
    Ctrl-C in a fit keeps the best iterate in the attributes and raises KeyboardInterrupt. The cost
    is that of `hamshoot.DirectSingleShooting`: L w²N an iteration.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
            ) -> LeakyResNetRegressor:
        """Find the optimal network.

        Parameters
        ----------
        X : array_like, shape (N, d_in)
            Finite numbers, N ≥ 2; a pipeline imputes what is missing and encodes categories.
        y : array_like, shape (N,) or (N, d_out)
        sample_weight : array_like, shape (N,), optional
            How often each row counts, ≥ 0; multiplied by a constant they are the same weights.

        Raises
        ------
        ValueError
            For data or parameters out of range, in one sentence.
        """
        rows, Y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True,
                                ensure_min_samples=2)
        self._column = Y.ndim == 1
        Y = np.asarray(Y, dtype=np.float64)
        weights = _weights(rows, sample_weight)
        return self._solve(rows, Y[:, None] if self._column else Y, None, weights)

    def predict(self, X: ArrayLike) -> NDArray:
        """Predictions, (K,) or (K, d_out) as y was, for rows X (K, d_in)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._column else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class LeakyResNetClassifier(ClassifierMixin, _LeakyResNetEstimator):
    """Classification by an optimal Leaky ResNet, fitted to one-hot classes.

    By least squares, or with ``loss="cross_entropy"``, which has ``predict_proba``. Parameters and
    attributes are those of `LeakyResNetRegressor`, and

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
            ) -> LeakyResNetClassifier:
        """Find the optimal network.

        Parameters
        ----------
        X : array_like, shape (N, d_in)
            Finite numbers, N ≥ 2.
        y : array_like, shape (N,)
            Labels of at least two classes.
        sample_weight : array_like, shape (N,), optional
            As of `LeakyResNetRegressor`; a class whose rows all have the weight 0 is none.

        Raises
        ------
        ValueError
            For data or parameters out of range, in one sentence.
        """
        rows, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(labels)
        weights = _weights(rows, sample_weight)
        if weights is not None:
            rows, labels, weights = rows[weights > 0], labels[weights > 0], weights[weights > 0]
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            trimmed = "" if weights is None else ", in the rows whose sample_weight is not 0"
            raise ValueError(f"y: expected at least 2 classes, got 1 class, {self.classes_[0]!r}"
                             f"{trimmed}")
        return self._solve(rows, np.eye(len(self.classes_))[places],
                           tuple(map(str, self.classes_)), weights)

    def decision_function(self, X: ArrayLike) -> NDArray:
        """Outputs of the network (K, classes), for rows X (K, d_in).

        Of two classes the output of the second minus that of the first, (K,), as is usual.
        """
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    @property
    def predict_proba(self) -> Callable[[ArrayLike], NDArray]:
        """Probabilities (K, classes), for rows X (K, d_in); with ``loss="cross_entropy"`` alone."""
        if self.loss != "cross_entropy":
            raise AttributeError('predict_proba: there are probabilities with loss="cross_entropy" '
                                 f"alone, got {self.loss!r}")
        return lambda X: softmax(self._outputs(X).T).T

    def predict(self, X: ArrayLike) -> NDArray:
        """Labels (K,) of the largest output, for rows X (K, d_in)."""
        outputs = self._outputs(X)
        return self.classes_[np.argmax(outputs, axis=1)]


# -- sizes and maps --------------------------------------------------------------------------------


def default_layers(effective_depth: float) -> int:
    """Return 2 L̃, rounded up, and at least 4."""
    return max(4, int(np.ceil(2 * effective_depth)))


def default_width(X: NDArray, Y: NDArray) -> int:
    """Columns of X that vary, or of Y, whichever are more; between 8 and 16."""
    varying = int(np.count_nonzero(np.ptp(X, axis=0)))
    return min(MOST_WIDTH, max(LEAST_WIDTH, varying, Y.shape[1]))


def distinct(X: NDArray, Y: NDArray, weights: NDArray
             ) -> tuple[NDArray, NDArray, NDArray | None]:
    """The rows that count, each once, and their weights, of mean 1; None where they are alike.

    So that rows given many times, and one row with that weight, are one and the same problem. With
    unlike weights rows are sorted, since the order of rows enters searches; with equal ones they
    stay in the order of their first. J is that of the rows as they were given: it is
    (1/Σs) Σ_j s_j ℓ_j either way.

    Parameters
    ----------
    X : ndarray, shape (N, d_in)
    Y : ndarray, shape (N, d_out)
    weights : ndarray, shape (N,)
        At least 0, two of them above.
    """
    X, Y, weights = X[weights > 0], Y[weights > 0], weights[weights > 0]
    rows, first, places = np.unique(np.hstack([X, Y]), axis=0, return_index=True,
                                    return_inverse=True)
    sums = np.bincount(places.ravel(), weights)
    if len(rows) < 2:  # nothing to learn, which needs two rows to be said
        return X[:2], Y[:2], None
    if np.all(sums == sums[0]):
        return X[np.sort(first)], Y[np.sort(first)], None
    return rows[:, : X.shape[1]], rows[:, X.shape[1] :], sums * (len(sums) / sums.sum())


def _weights(rows: NDArray, sample_weight: Any) -> NDArray | None:
    """Weights of rows, checked as scikit-learn does; None where there are none.

    Raises
    ------
    ValueError
        For weights below 0, and fewer than two above it.
    """
    if sample_weight is None:
        return None
    weights: NDArray = _check_sample_weight(sample_weight, rows, dtype=np.float64)
    if np.any(weights < 0):
        raise ValueError(f"sample_weight: expected numbers >= 0, got {weights.min():g}")
    counted = int(np.count_nonzero(weights))
    if counted < 2:
        raise ValueError("sample_weight: expected at least 2 rows with a sample_weight above 0, "
                         f"got {counted}")
    return weights


def _lift(X: NDArray, width: int, weights: NDArray | None) -> NDArray | None:
    """P (w, d_in) for scaled inputs X (N, d_in); None for the problem's own embedding.

    Inputs that are constant in training get a column of zeros: what else they are later would
    enter the network along directions that no sample has tried.
    """
    varying = np.ptp(X, axis=0) > 0
    columns = int(np.count_nonzero(varying))
    if columns == X.shape[1] <= width:
        return None
    lift = np.zeros((width, X.shape[1]))
    lift[:, varying] = np.eye(width, columns) if columns <= width else \
        _principal(X[:, varying], width, weights)
    return lift


def _readout(Y: NDArray, width: int, weights: NDArray | None) -> NDArray | None:
    """Q (d_out, w) for scaled targets Y (N, d_out); None for the problem's own embedding."""
    return None if Y.shape[1] <= width else _principal(Y, width, weights).T


def _principal(values: NDArray, most: int, weights: NDArray | None) -> NDArray:
    """The first principal directions (most, d) of rows (N, d), orthonormal, signs fixed. O(d³)."""
    _, directions = np.linalg.eigh(np.cov(values, rowvar=False, bias=True, aweights=weights))
    first = directions[:, ::-1][:, :most].T
    largest = first[np.arange(most), np.argmax(np.abs(first), axis=1)]
    return first * np.sign(largest)[:, None]
