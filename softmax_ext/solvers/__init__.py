"""The regularised optimum of softmax regression: `fit_lbfgs`, and `minimize` under it.

The solver knows the data by a protocol alone, `objective.Objective`: what it asks is loss and
gradient at a point, and now and then a sample of the rows. `arrays` keeps it for examples in
memory, `blocks` for those that are read piece by piece (over `pieces`, and `reservoir` for the
sample); `fit` checks arguments and begins. `lbfgs` is the algorithm, on a `penalised` objective:
its inverse Hessian is that of `pairs`, over a preconditioner from `curvature`, when `renewal` says.
`l1` is what an L1 penalty asks for, `standardised` what standardised features do, and `result` what
comes out. `evaluation_log` is a fit's checkpoint; in `together` several fits share readings.
"""

from .blocks import objective_of
from .fit import fit_lbfgs, minimize
from .result import FitResult
from .together import minimize_many

__all__ = ["FitResult", "fit_lbfgs", "minimize", "minimize_many", "objective_of"]
