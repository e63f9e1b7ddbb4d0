"""`SecondLook`: what looks at a solution again, by other means than those that found it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hamshoot.solution.resimulation import Resimulation, resimulate
from hamshoot.solution.running_cost import RunningCost, running_cost
from hamshoot.solution.solved_nodes import SolvedNodes
from hamshoot.support import verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hamshoot.problem.activations import Activation


class SecondLook(SolvedNodes):
    """Methods of `hamshoot.Solution`."""

    @property
    def activation(self) -> Activation:
        """σ the path obeys: the problem's, or for a ReLU the smooth one of `epsilon`."""
        return self.problem.sigma.smoothed(self.epsilon) if self.epsilon else self.problem.sigma

    def resimulate(self, rtol: float = 1e-12) -> Resimulation:
        """Simulate the solution anew, by other means, and say how far it is off along p.

        A continuous path by SciPy's DOP853: its control applied open loop from A_0, its costate run
        back from B_1, and each segment alone. Layers by their own recursion in extended precision,
        and beside it (`Resimulation.continuous`) the continuous network whose W is constant over
        each layer: how far that is from the layers is the discretisation error of these controls,
        O(1/L) for Euler layers, and no error of the solution. See
        `hamshoot.solution.resimulation`.

        Parameters
        ----------
        rtol : float
            Of DOP853, from 2.3e-14; of the continuous network of plain ReLU layers at least 1e-4.

        Returns
        -------
        Resimulation
            Errors of states and costates at the nodes, over the largest ‖A_p‖ and ‖B_p‖; `plot()`
            draws them, and the simulated path over the solved one.

        Raises
        ------
        ValueError
            For another tolerance.

        Notes
        -----
        A step of DOP853 takes 12 right-hand sides of about 10 w²N flops in NumPy; the recursion in
        extended precision 6 Lw²N flops without BLAS. States that are not stored are computed whole.
        """
        return resimulate(self, self.activation, rtol)

    def running_cost(self) -> RunningCost:
        """What the weights cost at every depth, (λ/2L̃)‖W_p‖², and up to it; with the loss it is J.

        On a continuous path the integral is that of the flow, to its tolerance.
        """
        return running_cost(self, self.activation)

    def mesh_report(self, *, refine: Sequence[int] = (), verbose: bool = False) -> Any:
        """How fine the mesh is, and whether it is fine enough; see `hamshoot.study.mesh_report`.

        Parameters
        ----------
        refine : sequence of int, optional
            Of layers: multiples of L that are solved too, each from the one before, as (2, 4): J at
            L, 2L and 4L and the order at which it converges. Costs these solves.
        verbose : bool
            Show the progress of these solves.

        Returns
        -------
        MeshReport
        """
        return verbs.mesh_report(self, refine=refine, verbose=verbose)
