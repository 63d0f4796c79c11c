"""``softmax-ext probe``: the protocol of linear probes, from files to a tested model."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _files
from .shared import chosen_kernels, complain, name_of, say

if TYPE_CHECKING:
    from ..solvers import FitResult
    from .sources import Part, Source


def probe(args: argparse.Namespace) -> int:
    # A model on standard output has it for itself.
    is_on_stdout = _files.descriptor_meant(args.model_out) == 1
    with contextlib.redirect_stdout(sys.stderr) if is_on_stdout else contextlib.nullcontext():
        return _probe(args)


def _probe(args: argparse.Namespace) -> int:
    from ..linear_probe import probe
    from .train import make_folder

    kernels = chosen_kernels(args)
    source = _load(args.data, args.labels, "data")
    X, y = _features(source.train), _labels(source, source.train.y)
    validation = _other(args, "validation", source)
    test = _other(args, "test", source)
    if test is None and source.test is not None:
        test = _features(source.test), _labels(source, source.test.y)
    # What cannot be written is told before the fits, not after them.
    target = _files.regular_target(args.model_out)
    if target is not None:
        make_folder(os.path.dirname(target))
    if args.report is not None:
        make_folder(args.report)
    say(
        args,
        f"{source.name}: {len(y)} rows to train on, {X.shape[-1]} features {X.dtype},"
        f" {len(source.class_names)} classes; kernels: {name_of(kernels)}",
    )

    def tell(result: FitResult) -> None:
        converged = "" if result.success else "; not converged"
        say(
            args,
            f"C {result.C:<8.3g} validation {args.scoring} {result.score:.4f}"
            f"  ({result.nfev} passes{converged})",
        )

    x_scale = 1 / 255 if X.dtype == np.uint8 else 1.0
    found = probe(
        X, y, validation_data=validation, test_data=test, Cs=args.C, search=args.search,
        standardize=not args.no_standardize, scoring=args.scoring, x_scale=x_scale, tol=args.tol,
        max_iter=args.max_iter, callback=tell, kernels=kernels,
    )  # fmt: skip
    missed = int((~found.path.success).sum()) + (not found.fit.success)
    if missed:
        complain(args, f"warning: {missed} fits not converged; see --max-iter and --tol")
    found.model.save(args.model_out)
    path = found.path
    say(args, f"chosen    C {found.C:.4g}, validation {args.scoring} {path.scores[path.best]:.4f}")
    if path.best in (0, len(path.Cs) - 1) and len(path.Cs) > 1:
        complain(args, "warning: the best is at the end of the values of C; try others: --C")
    say(args, f"path      {len(path.Cs)} values, {path.nfev} passes, {path.seconds:.1f} s")
    say(args, f"model     {args.model_out}")
    if args.report is not None:
        _report(args, found)
    if found.test is None:
        print(f"validation {args.scoring} {path.scores[path.best]:.4f}")
    else:
        t = found.test
        say(args, f"test      {t.n_rows} rows, log-loss {t.loss:.4f}, top-5 {t.top_5:.4f}")
        print(f"test accuracy {t.accuracy:.4f}")
    return 0


def _report(args: argparse.Namespace, found: Any) -> None:
    try:
        found.save_report(args.report)
    except ImportError as error:
        say(args, f"report    {os.path.join(args.report, 'probe.csv')} (no picture: {error})")
    else:
        say(args, f"report    {os.path.join(args.report, 'probe.png')}")


def _load(data: str, labels: str | None, option: str) -> Source:
    from .sources import NAMES, is_parquet, load_source

    if data in NAMES or (os.path.isdir(data) and not is_parquet(data)):
        raise ValueError(f"--{option}: {data} came, an .npy, .npz or Parquet file was wanted")
    return load_source(data, labels=labels)


def _features(part: Part) -> Any:
    """The features of a part, (N, D); those of Parquet files are read now."""
    from ..datasets import Blocks

    X = part.X
    if isinstance(X, Blocks):
        X = np.concatenate([np.asarray(piece.X) for piece in X])
    return X.reshape(len(X), -1)


def _labels(source: Source, indices: Any) -> Any:
    return indices if source.classes is None else source.classes[indices]


def _other(args: argparse.Namespace, part: str, training: Source) -> tuple[Any, Any] | None:
    """The features and labels of another part, the labels as those to train on are."""
    data, labels = getattr(args, part), getattr(args, f"{part}_labels")
    if data is None:
        if labels is not None:
            args.parser.error(f"--{part}-labels: goes with --{part} only")
        return None
    source = _load(data, labels, part)
    indices = source.indices_for(source.train, training.class_names)
    return _features(source.train), _labels(training, indices)
