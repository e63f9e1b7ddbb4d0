"""Second-order test of a continuous path: the smallest eigenvalue of the reduced Hessian of J.

At an extremal (A, B, W = L̃Bσ̂(A)ᵀ) the second derivative of h ↦ J(W + hV) at h = 0 is λ q(V), with

    q(V) = ∫ (1/L̃)‖V‖² − 2⟨B, V_A(σ′(A) ⊙ a)⟩ − ⟨W_AᵀB, σ″(A) ⊙ a ⊙ a⟩ dp + (2/(λN))‖Q a_1‖²,
    ∂_p a = −L̃a + W_A(σ′(A) ⊙ a) + Vσ̂(A),    a_0 = 0,

where V is the variation of the control, a the variation of the state that it causes, and V_A, W_A
are without bias column: differentiate λ(∫ ‖W‖²/(2L̃) + ⟨B, ∂_pA + L̃A − Wσ̂(A)⟩ dp) + C(A_1) twice in
(W, A). With a hard endpoint the last term of q is absent and V is restricted to a_1 = 0.

On L²([0, 1]) the reduced Hessian is (λ/L̃)(I + K) with K compact: its spectrum gathers at λ/L̃ alone,
so its smallest eigenvalue never exceeds λ/L̃, and it converges with the mesh. The strengthened
Legendre condition λ/L̃ > 0 holds by itself; what can fail is Jacobi's, and then the smallest
eigenvalue is negative: the path went past a conjugate point. A positive smallest eigenvalue makes q
coercive, hence the path a strict weak local minimum (among controls near W in the maximum norm; for
a smooth σ in the L² norm too, for the end of a control-affine system depends smoothly on it).

Discretisation. V is constant on each of M intervals, the variational equation is solved by the
implicit midpoint rule and the integral by the midpoint rule: exactly symmetric, of second order in
the mesh. The mesh follows the steps of the integrator that brought A and B, so it is dense where
activations pass their kink, and σ′ and σ″ enter by their means over an interval. The eigenvalue is
computed at M and 2M intervals and extrapolated.

Cost: setting up O(MNw³) flops and MNw² numbers; a product with K one forward and one adjoint sweep,
O(MNw²) flops; one to two hundred products a mesh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.integrate import OdeSolution

#: Paths whose test holds an array of more numbers than this are not decided (320 MB, of which it
#: needs about three). The largest has M·w²(80 + d_out·N) numbers; M·w²·N(w + 1) with a hard end.
MAX_NUMBERS = 40_000_000
#: Up to this many controls all eigenvalues are computed, above it the smallest by Lanczos.
MAX_DENSE = 500
#: Eigenvalues within this fraction of λ/L̃ count as zero.
EIGENVALUE_TOLERANCE = 1e-6
#: Singular values of V ↦ a_1 below this fraction of the largest count as zero.
RANK_TOLERANCE = 1e-8
#: Entries of a ReLU path closer to the kink than this lie on it.
KINK_TOLERANCE = 1e-10
_MIN_INTERVALS = 40
_PARTS = 8
_CHUNK_NUMBERS = 4_000_000
_SEED = 0
#: Lanczos vectors held at least. With ARPACK's 20 restarts take ten times as many products.
_LANCZOS_VECTORS = 80

States = Callable[["NDArray"], "tuple[NDArray, NDArray]"]


class PathSecondOrder(NamedTuple):
    """Verdict of the second-order test of a path.

    Attributes
    ----------
    verdict : str
        A sentence that begins with "strict local minimum", "saddle" or "not decided".
    min_eigenvalue : float
        Smallest eigenvalue of the reduced Hessian of J in the inner product ∫⟨V, V′⟩dp,
        extrapolated in the mesh; NaN when it was not computed. (Over L layers the inner product is
        the plain one of the controls; eigenvalues of equal layers divided by ρ tend to these.)
    error : float
        Its estimated error: a third of the difference of the two meshes, plus what Lanczos left.
    intervals : int
        Of the finer mesh.
    """

    verdict: str
    min_eigenvalue: float
    error: float
    intervals: int


class Trajectory:
    """A and B between the nodes of a path, from SciPy's integrations node to node.

    Parameters
    ----------
    pieces : list of scipy.integrate.OdeSolution
        One for each interval, in order; the first 2wN numbers of a state are A and B.
    shape : (int, int)
        (w, N).

    Attributes
    ----------
    breaks : ndarray
        Every step the integrator took, from 0 to 1.
    """

    def __init__(self, pieces: list[OdeSolution], shape: tuple[int, int]) -> None:
        self._pieces, self._shape = pieces, shape
        self._starts = np.array([piece.t_min for piece in pieces])
        self.breaks = np.unique(np.concatenate([piece.ts for piece in pieces]))

    def __call__(self, p: NDArray) -> tuple[NDArray, NDArray]:
        """A and B at the depths p (K,), (K, w, N) each."""
        owners = np.clip(np.searchsorted(self._starts, p, side="right") - 1, 0, None)
        states = np.empty((len(p), 2, *self._shape))
        for k in np.unique(owners):
            mine = owners == k
            values = self._pieces[k](p[mine])[: 2 * self._shape[0] * self._shape[1]]
            states[mine] = values.T.reshape(-1, 2, *self._shape)
        return states[:, 0], states[:, 1]


class Eigenvalue(NamedTuple):
    """Smallest eigenvalue over λ/L̃ on one mesh, its residual, and whether V ↦ a_1 has rank wN."""

    value: float
    residual: float
    full_rank: bool


def path_second_order(
    problem: TrainingProblem,
    sigma: Activation,
    states: States,
    breaks: NDArray,
    max_numbers: int = MAX_NUMBERS,
) -> PathSecondOrder:
    """Decide whether a stationary path is a strict local minimum of J, or a saddle.

    Parameters
    ----------
    problem : TrainingProblem
        With the soft loss or a hard endpoint.
    sigma : Activation
        The one that the path obeys: the smoothed one for a ReLU path that was smoothed.
    states : callable
        Depths (K,) to A and B, (K, w, N) each, of an extremal. That it is one is not checked here.
    breaks : ndarray
        Ascending from 0 to 1; the mesh is dense where these are.
    max_numbers : int
        Larger tests are not decided.

    Returns
    -------
    PathSecondOrder
        Decided on M and 2M intervals when the eigenvalue is clearly larger than its error, else
        once more on 4M.
    """
    nan, w = float("nan"), problem.width
    M = first_intervals(problem, sigma, states, breaks)
    N = problem.n_samples
    numbers = w * w * max(N, _lanczos_vectors(problem), N * (w + 1) if problem.hard_endpoint else 0)
    if 2 * M * numbers > max_numbers:
        return PathSecondOrder(
            f"not decided: {2 * M * numbers:.1e} numbers on {2 * M} intervals, the test takes "
            f"{max_numbers:.1e}", nan, nan, 2 * M,
        )
    kinks = _on_kink(states, mesh(breaks, 2 * M)) if sigma.name == "relu" else 0
    delta = problem.criterion.delta
    if delta and np.any(np.abs(_errors(problem, states, breaks) / delta - 1) < 1e-6):
        return PathSecondOrder("not decided: an error lies where Huber's loss goes over to its "
                               "tangent", nan, nan, 2 * M)
    if kinks:
        return PathSecondOrder(
            f"not decided: {kinks} activations cross or touch the kink of ReLU along the path, "
            "where the second variation jumps", nan, nan, 2 * M,
        )
    coarse = SecondVariation(problem, sigma, states, mesh(breaks, M)).smallest()
    for intervals in (2 * M, 4 * M):
        if intervals * numbers > max_numbers:
            break
        fine = SecondVariation(problem, sigma, states, mesh(breaks, intervals)).smallest()
        result = _verdict(problem, sigma, coarse, fine, intervals)
        if not result.verdict.startswith("not decided"):
            break
        coarse = fine
    return result


def first_intervals(
    problem: TrainingProblem, sigma: Activation, states: States, breaks: NDArray
) -> int:
    """M to begin with: it resolves the leak, the weights, and half the integrator's steps."""
    A, B = states(breaks)
    W = problem.effective_depth * B @ np.swapaxes(sigma(A), 1, 2)
    size = float(np.linalg.norm(W, 2, axis=(1, 2)).max())
    return int(np.ceil(max(_MIN_INTERVALS, 10 * problem.effective_depth, 4 * size,
                           len(breaks) / 2)))


def mesh(breaks: NDArray, intervals: int) -> NDArray:
    """Edges (M+1,), half of them spread evenly over [0, 1] and half like the breaks.

    For growing M the edges are those of one fixed C¹ map of [0, 1] to itself, so that errors fall
    like M⁻² and can be extrapolated.
    """
    from scipy.interpolate import PchipInterpolator

    # Every sixth break: an integrator's steps are uneven after each restart.
    last = len(breaks) - 1
    knots = np.unique(np.linspace(0, last, max(2, last // 6)).round().astype(int))
    share = 0.5 * breaks[knots] + 0.5 * knots / last
    edges = PchipInterpolator(share, breaks[knots])(np.linspace(0, 1, intervals + 1))
    edges[[0, -1]] = 0, 1
    return edges


class SecondVariation:
    """q on piecewise constant variations, as the operator I + K with λ/L̃ taken out.

    A variation V of the control on M intervals of lengths h is held as the vector of all √h V, so
    that the plain inner product of vectors is ∫⟨V, V′⟩dp and λ q(V) = (λ/L̃)(‖v‖² + vᵀKv).

    Parameters
    ----------
    problem, sigma, states
        As in `path_second_order`.
    edges : ndarray, shape (M+1,)
        Mesh.

    Attributes
    ----------
    size : int
        Number of controls M·w·(w+1), or M·w² without bias.
    """

    def __init__(
        self, problem: TrainingProblem, sigma: Activation, states: States, edges: NDArray
    ) -> None:
        w, N, depth = problem.width, problem.n_samples, problem.effective_depth
        self._shape = (len(edges) - 1, *problem.control_shape)
        self.size = int(np.prod(self._shape))
        self._width, self._depth = w, depth
        self._h = h = np.diff(edges)[:, None, None]
        A, self._B = states(0.5 * (edges[1:] + edges[:-1]))
        value = sigma(A)
        W = depth * self._B @ np.swapaxes(value, 1, 2)
        self._slope, self._curvature = _kink_means(sigma, depth, states, edges)
        ones = np.ones((len(h), 1, N))
        self._augmented = np.concatenate([value, ones], axis=1) if problem.bias else value
        # The midpoint of a step is the resolvent times (left node + h/2 source), a sample each.
        rates = W[:, None] * np.swapaxes(self._slope, 1, 2)[:, :, None, :] - depth * np.eye(w)
        self._resolvent = np.linalg.inv(np.eye(w) - 0.5 * h[..., None] * rates)
        self._vectors = _lanczos_vectors(problem)
        self._terminal = None if problem.hard_endpoint else \
            _end_curvature(problem, states(edges[-1:])[0][0])

    def compact_part(self, vectors: NDArray) -> NDArray:
        """K times each row of `vectors`, (C, n) to (C, n). O(C·MNw²)."""
        w, B, h = self._width, self._B, self._h
        V = vectors.reshape(-1, *self._shape) / np.sqrt(h)
        middle, end = self._forward(V)
        signal = np.swapaxes(V[..., :w], 2, 3) @ B
        running = -h * (self._slope * signal + self._curvature * middle)
        last = 0.0 * end
        if self._terminal is not None:
            last = self._terminal @ end if self._terminal.ndim == 2 else \
                np.einsum("nij,...jn->...in", self._terminal, end)
        result = self._source_gradient(self._backward(running, last))
        result[..., :w] -= B @ np.swapaxes(self._slope * middle, 2, 3)
        return (self._depth * np.sqrt(h) * result).reshape(vectors.shape)

    def endpoint(self) -> NDArray:
        """Matrix of v ↦ a_1, (N·w, n). One adjoint sweep, O(MNw³)."""
        h, N = self._h, self._B.shape[2]
        last = np.tile(np.eye(self._width), (N, 1, 1))
        z = np.empty((len(h), *last.shape))
        for j in range(len(h) - 1, -1, -1):
            z[j] = 2 * np.swapaxes(self._resolvent[j], 1, 2) @ last
            last = z[j] - last
        rows = np.einsum("jnia,jkn->najik", 0.5 * np.sqrt(h)[..., None] * z, self._augmented,
                         optimize=True)
        return rows.reshape(-1, self.size)

    def smallest(self) -> Eigenvalue:
        """Smallest eigenvalue of I + K, on the null space of v ↦ a_1 with a hard endpoint.

        There K is replaced by PKP with P the projection on the null space: its spurious eigenvalues
        are zero, where the spectrum of K gathers anyway, so they never hide one below.
        """
        full, basis = True, np.zeros((0, self.size))
        if self._terminal is None:
            _, values, basis = np.linalg.svd(self.endpoint(), full_matrices=False)
            kept = values > RANK_TOLERANCE * values[0]
            full, basis = bool(kept.all()), basis[kept]

        def project(vectors: NDArray) -> NDArray:
            return vectors - (vectors @ basis.T) @ basis if len(basis) else vectors

        def apply(vectors: NDArray) -> NDArray:
            return project(self.compact_part(project(vectors)))

        if self.size > MAX_DENSE:
            return Eigenvalue(*_lanczos(apply, self.size, self._vectors), full)
        chunk = max(1, _CHUNK_NUMBERS // self._B.size)
        rows = [apply(r) for r in np.split(np.eye(self.size), range(chunk, self.size, chunk))]
        dense = np.concatenate(rows)
        return Eigenvalue(1 + float(np.linalg.eigvalsh(0.5 * (dense + dense.T))[0]), 0.0, full)

    def _forward(self, V: NDArray) -> tuple[NDArray, NDArray]:
        """Variations of the state at the midpoints, (C, M, w, N), and at the end, (C, w, N)."""
        h = self._h[:, 0, 0]
        source = _columns(V @ self._augmented)
        middle, node = np.empty_like(source), np.zeros_like(source[0])
        for j in range(len(h)):
            middle[j] = self._resolvent[j] @ (node + 0.5 * h[j] * source[j])
            node = 2 * middle[j] - node
        return middle.transpose(3, 0, 2, 1), node.transpose(2, 1, 0)

    def _backward(self, running: NDArray, last: NDArray) -> NDArray:
        """Adjoint of `_forward`, up to the factor h/2 of the source: (C, M, w, N)."""
        pull = _columns(running)
        node, adjoint = last.transpose(2, 1, 0), np.swapaxes(self._resolvent, 2, 3)
        for j in range(len(pull) - 1, -1, -1):
            pull[j] = adjoint[j] @ (pull[j] + 2 * node)
            node = pull[j] - node
        return pull.transpose(3, 0, 2, 1)

    def _source_gradient(self, z: NDArray) -> NDArray:
        return 0.5 * z @ np.swapaxes(self._augmented, 1, 2)


def _kink_means(
    sigma: Activation, depth: float, states: States, edges: NDArray
) -> tuple[NDArray, NDArray]:
    """Means of σ′ and of σ″ ⊙ WᵀB over the intervals, (M, w, N) each.

    When an activation passes its kink quickly, σ″ is a peak narrower than an interval. Its mean is
    the jump it stands for; its value at the midpoint would be either much too large or nothing.
    """
    parts = _PARTS if sigma.epsilon else 1
    slope = curvature = np.zeros(())
    for k in range(parts):
        A, B = states(edges[:-1] + (k + 0.5) / parts * np.diff(edges))
        signal = depth * sigma(A) @ (np.swapaxes(B, 1, 2) @ B)
        slope = slope + sigma.slope(A) / parts
        curvature = curvature + sigma.curvature(A) * signal / parts
    return slope, curvature


def _errors(problem: TrainingProblem, states: States, breaks: NDArray) -> NDArray:
    """|QA_1 − Yᵀ|, (d_out, N)."""
    end = states(np.asarray(breaks[-1:], dtype=float))[0][0]
    return np.abs(problem.readout @ end - problem.targets)


def _end_curvature(problem: TrainingProblem, end: NDArray) -> NDArray:
    """(1/λ) ∂²C/∂A_1²: (2/(λN)) QᵀQ of squares, of another loss a block a sample, (N, w, w)."""
    Q = problem.readout
    if problem.criterion.plain:
        return 2 / (problem.weight_decay * problem.n_samples) * Q.T @ Q
    return Q.T @ problem.criterion.curvature(Q @ end, problem.targets) @ Q / problem.weight_decay


def _columns(values: NDArray) -> NDArray:
    """(C, M, w, N) to (M, N, w, C): a batch of small products for each interval."""
    return np.ascontiguousarray(values.transpose(1, 3, 2, 0))


def _lanczos_vectors(problem: TrainingProblem) -> int:
    """Vectors to hold: the loss makes d_out·N eigenvalues huge, and they come first."""
    return _LANCZOS_VECTORS + (0 if problem.hard_endpoint else problem.targets.size)


def _lanczos(
    apply: Callable[[NDArray], NDArray], n: int, held: int
) -> tuple[float, float]:
    """Smallest eigenvalue of I + K by ARPACK, and its residual; NaN if it does not converge."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    # ARPACK's tolerance is relative: K − I has its wanted eigenvalue below −1, never near zero.
    operator = LinearOperator((n, n), lambda v: apply(v.reshape(1, -1))[0] - v.ravel(), dtype=float)
    start = np.random.default_rng(_SEED).standard_normal(n)
    try:
        values, vectors = eigsh(operator, k=1, which="SA", v0=start, tol=1e-8,
                                ncv=min(held, n))
    except ArpackNoConvergence:
        return float("nan"), float("nan")
    residual = operator.matvec(vectors[:, 0]) - values[0] * vectors[:, 0]
    return 2 + float(values[0]), float(np.linalg.norm(residual))


def _verdict(
    problem: TrainingProblem, sigma: Activation, coarse: Eigenvalue, fine: Eigenvalue,
    intervals: int,
) -> PathSecondOrder:
    """Extrapolate in the mesh, and compare the eigenvalue with its error."""
    scale = problem.weight_decay / problem.effective_depth
    change = (fine.value - coarse.value) / 3
    value, error = fine.value + change, abs(change) + fine.residual + coarse.residual
    numbers = (scale * value, scale * error, intervals)
    if not np.isfinite(value):
        return PathSecondOrder("not decided: Lanczos' method did not converge", *numbers)
    smoothed = bool(sigma.epsilon) and problem.sigma.kinked
    of = f"the path of the smoothed network (ε = {sigma.epsilon:.3g})" if smoothed else "the path"
    number = f"smallest eigenvalue {numbers[0]:.3g} ± {numbers[1]:.1g}"
    margin = 3 * error + EIGENVALUE_TOLERANCE
    if abs(value) <= margin:
        verdict = f"not decided: {number} is zero to its error"
    elif value > 0:
        verdict = f"strict local minimum of {of}: {number}"
    elif problem.hard_endpoint and not fine.full_rank and sigma.name != "linear":
        # Then the multiplier B_1 is not unique, and another one may give another sign. (The reach
        # of a linear network has one dimension at all controls: it is a manifold, B_1 is unique on
        # it.)
        verdict = f"not decided: {number}, but the controls do not move the end every way"
    else:
        verdict = f"saddle of {of}: {number}"
    return PathSecondOrder(verdict, *numbers)


def _on_kink(states: States, edges: NDArray) -> int:
    """Entries (i, j) of A that change sign or touch zero after p = 0."""
    A, _ = states(np.concatenate([0.5 * (edges[1:] + edges[:-1]), edges[1:]]))
    low, high = A.min(axis=0), A.max(axis=0)
    return int(np.sum((low <= KINK_TOLERANCE) & (high >= -KINK_TOLERANCE)))
