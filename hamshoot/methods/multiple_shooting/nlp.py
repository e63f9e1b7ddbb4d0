"""The nonlinear program of direct multiple shooting, in CasADi, with its parts within reach.

The controls W_ℓ and the representations A_ℓ at every node are variables; a defect constraint ties
each node to the step from the one before. One program serves every ε of a ladder, every λ and L̃ and
every data set of the same size: they are parameters, and so is the starting point PXᵀ.

What stands where in x, g and p is `hamshoot.methods.multiple_shooting.layout`, all of it as a
contract `docs/nlp.md`.

Scaling: the objective is J/λ, so that the multiplier of F(A_{ℓ−1}, W_ℓ) − A_ℓ = 0 is −B_ℓ, the
momentum of the theory page in `hamshoot.theory.hamiltonian` itself.

In terms of (w, N, L) the program has L(w(w+1) + wN) variables and LwN constraints; its KKT matrix
is block tridiagonal, and factorising it costs O(L(wN)³) without the structure inside a node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.methods.multiple_shooting.solver_messages import caught
from hamshoot.problem.activations import casadi_forms
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    import casadi
    from numpy.typing import NDArray

NLP_SOLVERS = ("ipopt", "fatrop", "sqpmethod")
#: What is handed out beside the solver, and as C.
FUNCTIONS = ("step", "costate", "hamiltonian", "flow")
#: Up to this w·N the symmetric ordering of MUMPS beats METIS.
SMALL_NODE = 200


@dataclass(frozen=True, eq=False)
class MultipleShootingNLP:
    """A CasADi program and the functions it is made of.

    All matrices are CasADi's, column by column one sample; `epsilon` is that of the smooth ReLU
    (ignored by what has none, 0 evaluates the plain ReLU).

    Attributes
    ----------
    solver : casadi.Function
        The `nlpsol` object; call it with `x0`, `lam_g0`, `p` and zero bounds on g.
    step : casadi.Function
        (A, W, rho, effective_depth, epsilon) ↦ A at the next node.
    costate : casadi.Function
        (A, W, B_next, rho, effective_depth, epsilon) ↦ B, the exact adjoint of `step`.
    hamiltonian : casadi.Function
        (A, B, effective_depth, epsilon) ↦ H.
    flow : casadi.Function
        (A, B, effective_depth, epsilon) ↦ (∂_pA, ∂_pB).
    layers : int
    width, samples, columns : int
        w, N, and the columns of a control, w + 1 with a bias.
    sign : float
        lam_g = sign·B: −1, or +1 for fatrop, which needs the defects written the other way round.
    hard_endpoint : bool
        Whether A_L = given stands in place of the loss.
    program : casadi.Function
        (x, p) ↦ (f, g) of the program itself, f = J/λ; see
        `hamshoot.methods.multiple_shooting.layout` for what stands where.
    outputs : int
        d_out.
    inputs : int
        d_in.
    learned : tuple of str
        "P" and "Q" where lift and readout are learned: then they are variables.
    weighted : bool
        Whether the samples have weights.
    """

    solver: casadi.Function
    step: casadi.Function
    costate: casadi.Function
    hamiltonian: casadi.Function
    flow: casadi.Function
    layers: int
    width: int
    samples: int
    columns: int
    sign: float
    hard_endpoint: bool
    program: casadi.Function
    outputs: int
    inputs: int = 0
    learned: tuple[str, ...] = ()
    weighted: bool = False

    @cached_property
    def lagrangian(self) -> casadi.Function:
        """(x, p, lam_f, lam_g) ↦ (∇_x(lam_f f + lam_gᵀg), g), its derivatives automatic."""
        return self.program.factory("lagrangian", ["x", "p", "lam:f", "lam:g"],
                                    ["grad:gamma:x", "g"], {"gamma": ["f", "g"]})

    @property
    def overconstrained(self) -> bool:
        """Whether a hard endpoint has more entries than there are controls."""
        return self.hard_endpoint and self.samples > self.layers * self.columns

    def parameters(self, problem: TrainingProblem, steps: NDArray, epsilon: float) -> NDArray:
        """Parameter vector of a problem of this size, on layer steps (L,), at one ε."""
        data = [problem.scaled_inputs if "P" in self.learned else problem.initial_state]
        data += [problem.targets] if problem.endpoint is None else [problem.endpoint]
        data += [] if problem.hard_endpoint or "Q" in self.learned else [problem.readout]
        if problem.criterion.weights is not None:
            data.append(problem.criterion.weights[None])
        decays = [mu for mu in (problem.lift_decay, problem.readout_decay) if mu is not None]
        return np.concatenate([
            [problem.weight_decay, problem.effective_depth, epsilon], steps, *map(_column, data),
            decays
        ])

    def pack(self, weights: NDArray, representations: NDArray, lift: NDArray | None = None,
             readout: NDArray | None = None) -> NDArray:
        """x = [W_1, A_1, W_2, …, A_L] from controls (L, w, c) and nodes (L+1, w, N).

        With learned maps P (w, d_in) and Q (d_out, w) behind them.
        """
        given = {"P": lift, "Q": readout}
        maps = [M for name in self.learned if (M := given[name]) is not None]
        if len(maps) < len(self.learned):
            raise ValueError(f"pack: expected the learned maps {', '.join(self.learned)} as well")
        return np.concatenate([
            *(part for W, A in zip(weights, representations[1:], strict=True)
              for part in (_column(W), _column(A))),
            *map(_column, maps)])

    def maps(self, x: Any) -> dict[str, NDArray]:
        """P and Q within x, of those that are learned."""
        shapes = {"P": (self.width, self.inputs), "Q": (self.outputs, self.width)}
        x, found = np.asarray(x, dtype=float).ravel(), {}
        at = self.layers * self.width * (self.columns + self.samples)
        for name in self.learned:
            size = shapes[name][0] * shapes[name][1]
            found[name] = x[at : at + size].reshape(shapes[name], order="F").copy()
            at += size
        return found

    def unpack(self, x: Any) -> tuple[NDArray, NDArray]:
        """Controls (L, w, c) and representations at nodes 1…L, (L, w, N)."""
        w, c = self.width, self.columns
        most = self.layers * w * (c + self.samples)
        x = np.asarray(x, dtype=float).ravel()[:most].reshape(self.layers, -1)
        weights = x[:, : w * c].reshape(self.layers, c, w).swapaxes(1, 2)
        nodes = x[:, w * c :].reshape(self.layers, self.samples, w).swapaxes(1, 2)
        return weights.copy(), nodes.copy()

    def multipliers(self, momenta: NDArray) -> NDArray:
        """lam_g from momenta at nodes 0…L, (L+1, w, N)."""
        values = [self.sign * _column(B) for B in momenta[1:]]
        if self.hard_endpoint:
            # The endpoint constraint A_L − given pays what the last defect earns.
            values.append(-_column(momenta[-1]))
        return np.concatenate(values)

    def momenta(self, lam_g: Any) -> NDArray:
        """B at nodes 1…L, (L, w, N), from the multipliers of the defects."""
        w, N, L = self.width, self.samples, self.layers
        values = np.asarray(lam_g, dtype=float).ravel()[: L * w * N]
        return self.sign * values.reshape(L, N, w).swapaxes(1, 2)


def build_nlp(
    problem: TrainingProblem,
    layers: int,
    integrator: str = "euler",
    nlp_solver: str = "ipopt",
    options: dict[str, Any] | None = None,
    name: str = "multiple_shooting",
) -> MultipleShootingNLP:
    """Build the program for problems of one size: same w, N, L, d_out, activation, bias, endpoint.

    A learned lift or readout is a variable, its weight decay a parameter, and Xᵀ (d_in, N) one in
    place of A_0.

    Parameters
    ----------
    problem : TrainingProblem
        A ReLU is replaced by the smooth ReLU with ε as a parameter.
    layers : int
    integrator : {"euler", "rk4"}
        RK4 takes W constant over each step.
    nlp_solver : {"ipopt", "fatrop", "sqpmethod"}
    options : dict, optional
        Of `casadi.nlpsol`.

    Raises
    ------
    ValueError
        For a solver that this CasADi does not have, or an option that it does not know.
    """
    import casadi as ca

    functions = casadi_functions(problem, integrator)
    w, N = problem.initial_state.shape
    columns = problem.control_shape[1]
    sign = 1.0 if nlp_solver == "fatrop" else -1.0
    lam, leak, epsilon = (ca.MX.sym(n) for n in ("lambda", "L", "epsilon"))
    rho = ca.MX.sym("rho", layers)
    ends = _ends(problem)
    variables, constraints, norm, A = [], [], 0, ends.start
    for k in range(layers):
        W, A_next = ca.MX.sym(f"W_{k + 1}", w, columns), ca.MX.sym(f"A_{k + 1}", w, N)
        variables += [ca.vec(W), ca.vec(A_next)]
        defect = functions["step"](A, W, rho[k], leak, epsilon) - A_next
        constraints.append(ca.vec(defect if sign < 0 else -defect))
        norm += rho[k] * ca.sumsqr(W)
        A = A_next
    objective = norm / (2 * leak)
    if problem.hard_endpoint:
        constraints.append(ca.vec(A - ends.data[1]))
    else:
        objective += (_loss(problem, ends.readout @ A, *ends.compared) / N + ends.decay) / lam
    variables += [ca.vec(M) for M in ends.maps.values()]
    parts = {
        "x": ca.vertcat(*variables), "f": objective, "g": ca.vertcat(*constraints),
        "p": ca.vertcat(lam, leak, epsilon, rho, *map(ca.vec, ends.data)),
    }
    options = {"print_time": False, **(options or {})}
    if nlp_solver == "fatrop":
        end = w * N if problem.hard_endpoint else 0
        options.update(
            structure_detection="manual", N=layers, nx=[0] + [w * N] * layers,
            nu=[w * columns] * layers + [0], ng=[0] * layers + [end],
            equality=[True] * (layers * w * N + end),
        )
    try:
        with caught():  # what it says of too many constraints is `overconstrained`
            solver = ca.nlpsol(name, nlp_solver, parts, options)
    except RuntimeError as error:
        raise ValueError(
            f"nlp_solver: {nlp_solver} cannot be set up here ({_reason(error)})"
        ) from None
    program = ca.Function("program", parts, ["x", "p"], ["f", "g"])
    return MultipleShootingNLP(
        solver=solver, layers=layers, width=w, samples=N, columns=columns, sign=sign,
        hard_endpoint=problem.hard_endpoint, program=program, outputs=problem.d_out,
        inputs=problem.d_in, learned=tuple(ends.maps),
        weighted=problem.criterion.weights is not None, **functions,
    )


class _Ends(NamedTuple):
    """Both ends of the program in symbols.

    Attributes
    ----------
    start : casadi.MX
        A_0, a parameter, or PXᵀ of a learned P.
    readout : casadi.MX or None
    compared : list of casadi.MX
        Yᵀ, and the weights of samples if there are any.
    maps : dict of str to casadi.MX
        "P" and "Q" of learned maps.
    data : list of casadi.MX
        Parameters, in their order.
    decay : casadi.MX or float
        The weight decay of the maps.
    """

    start: Any
    readout: Any
    compared: list[Any]
    maps: dict[str, Any]
    data: list[Any]
    decay: Any


def _ends(problem: TrainingProblem) -> _Ends:
    import casadi as ca

    w, N = problem.initial_state.shape
    maps, decays, decay = {}, [], 0.0
    for name, mu, shape in (("P", problem.lift_decay, problem.lift.shape),
                            ("Q", problem.readout_decay, problem.readout.shape)):
        if mu is not None:
            maps[name] = ca.MX.sym(name, *shape)
            decays.append(ca.MX.sym(f"mu_{name}"))
            decay += decays[-1] / 2 * ca.sumsqr(maps[name])
    first = ca.MX.sym("X", problem.d_in, N) if "P" in maps else ca.MX.sym("A_0", w, N)
    start = maps["P"] @ first if "P" in maps else first
    if problem.hard_endpoint:
        return _Ends(start, None, [], maps, [first, ca.MX.sym("A_1", w, N)], decay)
    compared = [ca.MX.sym("Y", problem.d_out, N)]
    readout = maps["Q"] if "Q" in maps else ca.MX.sym("Q", problem.d_out, w)
    data = [first, compared[0]] + ([] if "Q" in maps else [readout])
    if problem.criterion.weights is not None:
        compared.append(ca.MX.sym("s", 1, N))
        data.append(compared[1])
    return _Ends(start, readout, compared, maps, data + decays, decay)


def overconstrained(problem: TrainingProblem, layers: int) -> str:
    """A sentence where a hard endpoint asks for more numbers than there are controls; else ""."""
    asked = problem.initial_state.size
    controls = layers * int(np.prod(problem.control_shape))
    if not problem.hard_endpoint or asked <= controls:
        return ""
    least = -(-asked // int(np.prod(problem.control_shape)))
    return (f"the endpoint prescribes {asked} numbers and {layers} layers have {controls} "
            f"controls, so that it is out of reach as a rule; at least {least} layers have as many")


def iteration_callback(
    stop: Callable[[NDArray], bool], variables: int, constraints: int
) -> casadi.Callback:
    """Build an `iteration_callback` for `nlpsol`; keep a reference to it as long as the solver.

    Parameters
    ----------
    stop : callable
        Receives x of every iterate; the solver stops where it returns True. It must not raise: an
        exception does not cross CasADi, which prints it and carries on.
    variables, constraints : int
        Sizes of x and g.
    """
    import casadi as ca

    x, g = ca.Sparsity.dense(variables), ca.Sparsity.dense(constraints)
    sparsity = {"x": x, "lam_x": x, "g": g, "lam_g": g, "f": ca.Sparsity.scalar()}

    class Callback(ca.Callback):
        def __init__(self) -> None:
            ca.Callback.__init__(self)
            self.construct("iteration", {})

        def get_n_in(self) -> int:
            return ca.nlpsol_n_out()

        def get_n_out(self) -> int:
            return 1

        def get_name_in(self, i: int) -> str:
            return ca.nlpsol_out(i)

        def get_sparsity_in(self, i: int) -> casadi.Sparsity:
            return sparsity.get(ca.nlpsol_out(i), ca.Sparsity(0, 0))

        def eval(self, arguments: list) -> list:
            return [int(stop(arguments[0].full().ravel()))]

    return Callback()


# -- functions -------------------------------------------------------------------------------------


def casadi_functions(problem: TrainingProblem, integrator: str) -> dict[str, casadi.Function]:
    """Step, costate, Hamiltonian and flow on symbols of the problem's size."""
    import casadi as ca

    w, N = problem.initial_state.shape
    sigma = problem.sigma.smoothed(1.0)  # ε is a parameter
    A, B = ca.MX.sym("A", w, N), ca.MX.sym("B", w, N)
    W = ca.MX.sym("W", *problem.control_shape)
    rho, leak, epsilon = (ca.MX.sym(n) for n in ("rho", "L", "epsilon"))

    def augmented(x: Any) -> Any:
        S = casadi_forms(sigma, x, epsilon)[0]
        return ca.vertcat(S, ca.MX.ones(1, N)) if problem.bias else S

    def velocity(x: Any) -> Any:
        return W @ augmented(x) - leak * x

    if integrator == "euler":
        end = (1 - rho * leak) * A + rho * (W @ augmented(A))
    else:
        k1 = velocity(A)
        k2 = velocity(A + rho / 2 * k1)
        k3 = velocity(A + rho / 2 * k2)
        k4 = velocity(A + rho * k3)
        end = A + rho / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    S = augmented(A)
    W_star = leak * (B @ S.T)
    H = leak / 2 * ca.sumsqr(B @ S.T) - leak * ca.sum1(ca.sum2(B * A))
    dA = W_star @ S - leak * A
    dB = leak * B - casadi_forms(sigma, A, epsilon)[1] * (W_star[:, :w].T @ B)
    return {
        "step": ca.Function("step", [A, W, rho, leak, epsilon], [end],
                            ["A", "W", "rho", "effective_depth", "epsilon"], ["A_next"]),
        "costate": ca.Function("costate", [A, W, B, rho, leak, epsilon],
                               [ca.jtimes(end, A, B, True)],
                               ["A", "W", "B_next", "rho", "effective_depth", "epsilon"], ["B"]),
        "hamiltonian": ca.Function("hamiltonian", [A, B, leak, epsilon], [H],
                                   ["A", "B", "effective_depth", "epsilon"], ["H"]),
        "flow": ca.Function("flow", [A, B, leak, epsilon], [dA, dB],
                            ["A", "B", "effective_depth", "epsilon"], ["dA", "dB"]),
    }


def _loss(problem: TrainingProblem, outputs: Any, targets: Any, weights: Any = None) -> Any:
    """N·C of outputs (d_out, N) as a CasADi expression."""
    import casadi as ca

    loss, apart = problem.criterion, outputs - targets
    if loss.plain:
        return ca.sumsqr(apart)
    if loss.name == "squared":
        terms = apart**2
    elif loss.name == "huber":
        size = ca.fabs(apart)
        terms = ca.if_else(size <= loss.delta, apart**2, 2 * loss.delta * size - loss.delta**2)
    else:
        tops = ca.horzcat(*(ca.logsumexp(outputs[:, j]) for j in range(problem.n_samples)))
        terms = targets * (ca.repmat(tops, problem.d_out, 1) - outputs)
    sums = ca.sum1(terms)
    return ca.sum2(sums if weights is None else weights * sums)


def _reason(error: RuntimeError) -> str:
    """The line of CasADi's message that says what is wrong."""
    lines = str(error).strip().splitlines()
    telling = [line for line in lines if "nknown option" in line or "No such" in line]
    return (telling or lines)[-1].split(": ", 1)[-1].strip()


def _column(matrix: NDArray) -> NDArray:
    """Column by column, as CasADi stacks a matrix."""
    return np.asarray(matrix, dtype=float).T.ravel()
