"""What the numbers of a report mean, for a reader who is new to them."""

from __future__ import annotations

#: By the label that a number has in `hamshoot.study.tables.QUANTITIES`.
MEANINGS = {
    "solved": "Whether it ended as it was meant to: a stationary point found, or all epochs run.",
    "status": "How the solver ended. Only converged claims a stationary point; trained networks "
              "claim none.",
    "objective J": "What is minimised: the loss, plus λ/(2L̃) times the parameter norm. The lower, "
                   "the better; it compares networks on one problem only.",
    "loss (train error)": "Mean squared distance of outputs and targets, summed over the targets, "
                          "in the units the network works in (standardised, if the data were).",
    "test error": "The same on rows that were held out, which no solver saw.",
    "train accuracy": "Share of the training samples whose class is predicted.",
    "test accuracy": "The same on rows that were held out.",
    "parameter norm ∫‖W‖²": "The price of the weights: their squared norm, integrated over depth.",
    "weight decay of learned maps": "The part of the objective that a learned lift and readout "
                                    "have, (μ/2)‖·‖² each.",
    "stationarity": "How far any layer's weights are from those of the optimality condition, as a "
                    "share of their size: 0 at a stationary point, 1e-9 for all practical "
                    "purposes, 1 for a network that is none.",
    "second order": "Whether a stationary point was proved to be a local minimum.",
    "activations on the kink": "Entries that are exactly 0 where ReLU has its kink; optima of ReLU "
                               "networks hold many there.",
    "of them of dead neurons": "Those among them that no weight reads.",
    "Hamiltonian H": "The conserved quantity of an optimal path, in the median over depth.",
    "Hamiltonian drift": "How much it varies over depth, relative to its size (or to 1): 0 on an "
                         "exact path, and of the order of one layer's step for networks.",
    "bottleneck rank −2H/L̃": "An estimate from below of the dimension in the middle of the "
                              "network. Below 0 it says nothing.",
    "the same without costate": "The estimate from the layers alone, which also describes networks "
                                "that are not stationary.",
    "min cost of identity": "An estimate from above of that dimension: the least cost, over depth, "
                            "of keeping the representation as it is.",
    "iterations": "Of the solver, or epochs of gradient descent.",
    "seconds": "By the clock, of the run that is kept.",
    "CPU seconds, all told": "Of all starts, rates and schedules that were tried.",
    "runs that fitted": "How many runs of gradient descent fitted into the solver's seconds.",
}
#: Words that the page uses beyond them.
WORDS = {
    "depth p": "From 0, the input, to 1, the output. A network of L layers has L + 1 nodes.",
    "representation A": "What the network makes of all samples at a depth, a column a sample.",
    "costate B": "The adjoint of A: the direction in which a change of A lowers the objective, "
                 "scaled by the weight decay. At an optimum W = L̃Bσ̂(A)ᵀ.",
    "leakage L̃": "The effective depth: how strongly a representation decays unless the weights "
                  "hold it. Large L̃ favours few dimensions in the middle.",
}
