"""``softmax-ext train``."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _files
from .options import DEFAULT_CHECKPOINT, LBFGS_DEFAULTS, TRAINING_DEFAULTS
from .shared import chosen_kernels, complain, load_data, name_of, say, score_of, score_table

if TYPE_CHECKING:
    from ..model import SoftmaxModel
    from ..training import History, Trainer
    from .progress import Lines
    from .sources import Source

# The ending of a checkpoint beside a model; and how many bytes a name may have, nearly everywhere.
CHECKPOINT, LONGEST_NAME = ".checkpoint.npz", 255


class _Run(NamedTuple):
    """A training that has come to its end."""

    model: SoftmaxModel
    history: History
    settings: dict[str, object]
    #: What a row of the history is.
    unit: str
    #: To be removed once the model is written.
    checkpoint: str | None = None


def train(args: argparse.Namespace) -> int:
    # A model on standard output has it for itself.
    is_on_stdout = _files.descriptor_meant(args.model_out) == 1
    with contextlib.redirect_stdout(sys.stderr) if is_on_stdout else contextlib.nullcontext():
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    from . import report
    from .progress import make_progress

    _refuse_other_solver(args)
    # Nothing can lie beside a pipe or a device.
    model_file = "model" if _files.regular_target(args.model_out) is None else args.model_out
    beside = _checkpoint_beside(model_file)
    checkpoint = beside if args.checkpoint is None else args.checkpoint
    if os.path.realpath(checkpoint) == os.path.realpath(args.model_out):
        args.parser.error(f"--checkpoint and --model-out: both are {checkpoint}")
    kernels = chosen_kernels(args)
    source = load_data(args).with_test()
    assert source.test is not None
    # What cannot be written is told before the training, not after it.
    for path in (args.model_out, checkpoint):
        target = _files.regular_target(path)
        if target is not None:
            make_folder(os.path.dirname(target))
    if args.report is not None:
        make_folder(args.report)

    listeners = [] if args.quiet else [make_progress()]
    if args.solver == "lbfgs":
        run = _run_lbfgs(args, source, kernels, listeners)
    else:
        run = _run_sgd(args, source, checkpoint, kernels, listeners)

    model = run.model
    if not np.isfinite(run.history.train_loss[-1:]).all():
        raise ValueError("the training diverged, there is no model; lower --learning-rate")
    model.save(args.model_out)
    train_score, _ = score_of(model, source.train)
    test_score, predicted = score_of(model, source.test)
    say(args, "")
    say(args, score_table([("train", train_score), ("test", test_score)]))
    say(args, f"model     {args.model_out}")
    if args.report is not None:
        training = report.Training(
            model,
            source,
            source.test,
            run.history,
            train_score,
            test_score,
            predicted,
            run.settings,
            run.unit,
        )
        why_no_pictures = report.write_report(args.report, training)
        note = f" (no pictures: {why_no_pictures})" if why_no_pictures else ""
        say(args, f"report    {os.path.join(args.report, 'report.md')}{note}")
    if run.checkpoint is not None and os.path.exists(run.checkpoint):
        os.unlink(run.checkpoint)  # has done its duty
    print(f"test accuracy {test_score.accuracy:.4f}")
    return 0


def _checkpoint_beside(model_file: str) -> str:
    """NAME.checkpoint.npz, with as much of the model's name as a file's name has room for."""
    name = os.path.splitext(model_file)[0]
    while len(os.fsencode(os.path.basename(name) + CHECKPOINT)) > LONGEST_NAME:
        name = name[:-1]
    return name + CHECKPOINT


def make_folder(path: str) -> None:
    """Make a folder, where it is missing, and see whether files can be written there."""
    import tempfile

    os.makedirs(path, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        why = f"nothing can be written there ({error.strerror}); choose another folder"
        raise OSError(error.errno, why, path) from error


@contextlib.contextmanager
def _shown(listeners: list[Lines]) -> Iterator[None]:
    """While a training goes on; a bar is gone afterwards."""
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        yield


def _refuse_other_solver(args: argparse.Namespace) -> None:
    """What the solver has no use for is an error, not left out silently."""
    of_sgd = (*TRAINING_DEFAULTS, "resume")
    other, foreign = ("sgd", of_sgd) if args.solver == "lbfgs" else ("lbfgs", (*LBFGS_DEFAULTS,))
    for name in foreign:
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            args.parser.error(f"{option}: goes with --solver {other} only")


def _run_sgd(
    args: argparse.Namespace, source: Source, checkpoint: str, kernels: Any, listeners: list[Lines]
) -> _Run:
    """Minibatch descent, from zero or from a checkpoint."""
    from ..training import TrainingInterrupted

    assert source.test is not None
    beside = checkpoint if args.checkpoint is None else None
    if args.resume is None:
        trainer, model = _new_run(args, source, checkpoint, kernels, listeners)
    else:
        if args.resume != DEFAULT_CHECKPOINT:
            checkpoint = args.resume
        trainer = _resumed_run(args, checkpoint, kernels, listeners)
        model = trainer.model
    say(args, _describe(source, kernels))
    try:
        with _shown(listeners):
            validation = source.targets(source.test)
            history = trainer.fit(model, *source.targets(source.train), validation_data=validation)
    except TrainingInterrupted as interrupt:
        if interrupt.checkpoint is None:
            raise
        again = shlex.join(["softmax-ext", *_without_resume(args.words)])
        raise KeyboardInterrupt(
            f"{interrupt}; go on with: {again} --resume {shlex.quote(interrupt.checkpoint)}"
        ) from interrupt
    settings = {name: getattr(trainer, name) for name in TRAINING_DEFAULTS}
    return _Run(
        model,
        history,
        _settings(args, settings, model, kernels),
        "epoch",
        beside if trainer.checkpoint == beside else None,
    )


def _run_lbfgs(
    args: argparse.Namespace, source: Source, kernels: Any, listeners: list[Lines]
) -> _Run:
    """L-BFGS, from zero to the regularised optimum."""
    import time

    from ..model import SoftmaxModel
    from ..solvers import FitResult, fit_lbfgs
    from ..training import History, HistoryRow

    assert source.test is not None
    test = source.test
    model = _new_model(args, source, kernels)
    settings = _chosen(args, LBFGS_DEFAULTS)
    say(args, _describe(source, kernels))
    history = History()
    n = len(source.train.y)
    start = time.perf_counter()

    def record(state: FitResult) -> None:
        nonlocal start
        seconds = time.perf_counter() - start
        iterate = SoftmaxModel(state.W, state.b, None, model.x_scale, kernels=kernels)
        row = HistoryRow(
            epoch=state.nit,
            train_loss=(state.fun - state.penalty) / n,
            train_accuracy=math.nan,  # would take another pass
            validation_loss=iterate.loss(*test),
            validation_accuracy=iterate.accuracy(*test),
            seconds=seconds,
            examples_per_second=n / seconds,
        )
        history.append(row)
        for listener in listeners:
            listener.on_iteration(row, state.grad_norm)
        start = time.perf_counter()

    with _shown(listeners):
        result = fit_lbfgs(
            model,
            *source.targets(source.train),
            **settings,
            checkpoint=args.checkpoint,
            callback=record,
        )
    if not result.success:
        complain(args, f"warning: not converged: {result.message}; see --max-iter and --tol")
    say(args, f"after {result.nit} iterations: {result.message}")
    settings["outcome"] = f"{result.message}; {result.nfev} passes over the data"
    return _Run(model, history, _settings(args, settings, model, kernels), "iteration")


def _chosen(args: argparse.Namespace, defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings given, and the defaults of the others."""
    given = {name: getattr(args, name) for name in defaults}
    return defaults | {name: value for name, value in given.items() if value is not None}


def _new_model(args: argparse.Namespace, source: Source, kernels: Any) -> SoftmaxModel:
    """A model of zeros for the data."""
    from ..model import SoftmaxModel

    X = source.train.X
    x_scale = (1 / 255 if X.dtype == np.uint8 else 1.0) if args.x_scale is None else args.x_scale
    return SoftmaxModel.zeros(
        math.prod(X.shape[1:]),
        len(source.class_names),
        dtype=args.dtype or "float32",
        classes=source.classes,
        x_scale=x_scale,
        kernels=kernels,
    )


def _new_run(
    args: argparse.Namespace, source: Source, checkpoint: str, kernels: Any, listeners: list[Lines]
) -> tuple[Trainer, SoftmaxModel]:
    from ..training import Trainer

    if os.path.exists(checkpoint):
        complain(
            args,
            f"warning: {checkpoint}, of a run that did not finish, will be replaced;"
            " --resume would have gone on from it",
        )
    settings = _chosen(args, TRAINING_DEFAULTS)
    trainer = Trainer(**settings, checkpoint=checkpoint, callbacks=listeners)
    return trainer, _new_model(args, source, kernels)


def _resumed_run(
    args: argparse.Namespace, path: str, kernels: Any, listeners: list[Lines]
) -> Trainer:
    from ..training import Trainer

    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such checkpoint; start anew, without --resume")
    trainer = Trainer.resume(
        path,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        checkpoint=args.checkpoint,
        callbacks=listeners,
        kernels=kernels,
    )
    model = trainer.model
    fixed = {
        "batch_size": trainer.batch_size,
        "momentum": trainer.momentum,
        "weight_decay": trainer.weight_decay,
        "seed": trainer.seed,
        "average": trainer.average,
        "dtype": str(model.W.dtype),
        "x_scale": model.x_scale,
    }
    for name, value in fixed.items():
        given = getattr(args, name)
        if given is not None and given != value:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option}: {given}, but {path} was written with {value}; leave {option} out to"
                " go on, or --resume to start anew"
            )
    return trainer


def _without_resume(words: list[str]) -> list[str]:
    """The command line less ``--resume`` and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip and not word.startswith("-"):
            skip = False
            continue
        skip = word == "--resume"
        if not skip and not word.startswith("--resume="):
            kept.append(word)
    return kept


def _settings(
    args: argparse.Namespace, solver: dict[str, Any], model: SoftmaxModel, kernels: Any
) -> dict[str, object]:
    """What the training was done with, for the report."""
    from ..threads import get_num_threads

    return {
        "data": args.data,
        "solver": args.solver,
        **{name.replace("_", " "): value for name, value in solver.items()},
        "dtype": model.W.dtype,
        "x scale": f"{model.x_scale:.6g}",
        "kernels": name_of(kernels),
        "threads": get_num_threads(),
        "model": args.model_out,
    }


def _describe(source: Source, kernels: Any) -> str:
    """What is trained on, and with what."""
    from ..threads import get_num_threads

    assert source.test is not None
    shape = " x ".join(map(str, source.train.X.shape[1:]))
    return (
        f"{source.name}: {len(source.train.y)} examples to train on, {len(source.test.y)} to test,"
        f" {shape} {source.train.X.dtype}, {len(source.class_names)} classes\n"
        f"kernels: {name_of(kernels)}; threads: {get_num_threads()}"
    )
