"""The regularised optimum of softmax regression: `fit_lbfgs`, and `minimize` under it.

The solver knows the data by a protocol alone, `objective.Objective`: what it asks is loss and
gradient at a point, and now and then a sample of the rows. `arrays` keeps it for examples in
memory, `blocks` for those that are read piece by piece (over `pieces`, and `reservoir` for the
sample); `fit` checks arguments and begins. `lbfgs` is the algorithm, on a `penalised` objective:
its inverse Hessian is that of `pairs`, over a preconditioner from `curvature`, when `renewal` says.
`proximal` is the algorithm for `penalties` that make weights 0: steps by a model of the loss, from
second `moments` or `columns`, and Newton's on the `support`, until a `certificate` says that they
have come close enough. `path` follows the optimum from penalty to penalty, by the `continuation` of
one L-BFGS over the `spectrum` of the curvature; `standardised` is the objective of features centred
and scaled. `evaluation_log` is a fit's checkpoint; in `together` several fits share readings.
`result` is what comes out.
"""

from .blocks import objective_of
from .fit import fit_lbfgs, lambda_max, minimize
from .path import PathResult, fit_path
from .result import FitResult
from .together import minimize_many

__all__ = [
    "FitResult",
    "PathResult",
    "fit_lbfgs",
    "fit_path",
    "lambda_max",
    "minimize",
    "minimize_many",
    "objective_of",
]
