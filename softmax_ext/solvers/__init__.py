"""The regularised optimum of softmax regression: `fit_lbfgs`, and `minimize` under it.

The solver knows the data by a protocol alone, `objective.Objective`: what it asks is loss and
gradient at a point, and now and then a sample of the rows. `arrays` keeps it for examples in
memory; `fit` checks arguments and begins. `lbfgs` is the algorithm, on a `penalised` objective: its
inverse Hessian is that of `pairs`, over a preconditioner from `curvature`, when `renewal` says so.
`path` follows the optimum from penalty to penalty, by the `continuation` of one L-BFGS over the
`spectrum` of the curvature; `standardised` is the objective of features centred and scaled.
`l1` is what an L1 penalty asks for, and `result` what comes out.
"""

from .fit import fit_lbfgs, minimize
from .path import PathResult, fit_path
from .result import FitResult
from .together import minimize_many

__all__ = ["FitResult", "PathResult", "fit_lbfgs", "fit_path", "minimize", "minimize_many"]
