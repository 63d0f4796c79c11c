"""The command line: ``softmax-ext``, also ``python -m softmax_ext``.

Exit status: 0 for success, 1 for a failure, 2 for a bad command line, 130 for Ctrl-C, 141 where
the reader of standard output went away.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import math
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from . import _files
from .options import DEFAULT_CHECKPOINT, LBFGS_DEFAULTS, TRAINING_DEFAULTS, make_parser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import SoftmaxModel
    from .progress import Lines
    from .report import Score
    from .sources import Part, Source
    from .trainer import History, Trainer

__all__ = ["main"]

_BLOCK = 4096  # rows predicted at a time


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default the process's own.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    SystemExit
        With 2 for a bad command line, and with 0 after ``--help`` and ``--version``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
    words = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(words)
    args.words = words
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            status = _COMMANDS[args.command](args)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            _complain(args, str(interrupt) or "interrupted")
            return 130
        except BrokenPipeError:
            _drop_unwritten()
            return 141
        except Exception as error:
            if args.debug:
                raise
            _complain(args, f"error: {_one_line(error)}")
            _drop_unwritten()
            return 1
    return status


# ---------------------------------------------------------------------------------- messages


def _as_bytes_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream does with what it cannot encode, names of files and classes for example.

    Bytes that were no text when they came in go out as they were; the rest is escaped.
    """
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


_ERRORS = "softmax_ext"
codecs.register_error(_ERRORS, _as_bytes_or_escaped)


def _complain(args: argparse.Namespace, message: str) -> None:
    print(f"softmax-ext {args.command}: {message}", file=sys.stderr)


def _drop_unwritten() -> None:
    """Keep Python from trying at exit, and failing once more, to write what nobody can take."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"softmax-ext: warning: {message}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}" if str(error) else "not enough memory"
    elif isinstance(error, OSError | ValueError | TypeError | IndexError | ImportError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


# ------------------------------------------------------------------------------------- train


class _Run(NamedTuple):
    """A training that has come to its end."""

    model: SoftmaxModel
    history: History
    settings: dict[str, object]
    #: What a row of the history is.
    unit: str
    #: To be removed once the model is written.
    checkpoint: str | None = None


def _train(args: argparse.Namespace) -> int:
    from . import report
    from .progress import make_progress

    _refuse_other_solver(args)
    # Nothing can lie beside a pipe or a device.
    model_file = "model" if _files.regular_target(args.model_out) is None else args.model_out
    beside = f"{os.path.splitext(model_file)[0]}.checkpoint.npz"
    checkpoint = beside if args.checkpoint is None else args.checkpoint
    if os.path.realpath(checkpoint) == os.path.realpath(args.model_out):
        args.parser.error(f"--checkpoint and --model-out: both are {checkpoint}")
    kernels = _kernels(args)
    source = _load(args).with_test()
    assert source.test is not None
    # What cannot be written is told before the training, not after it.
    for path in (args.model_out, checkpoint):
        target = _files.regular_target(path)
        if target is not None:
            _make_folder(os.path.dirname(target))
    if args.report is not None:
        _make_folder(args.report)

    listeners = [] if args.quiet else [make_progress()]
    if args.solver == "lbfgs":
        run = _run_lbfgs(args, source, kernels, listeners)
    else:
        run = _run_sgd(args, source, checkpoint, kernels, listeners)

    model = run.model
    if not np.isfinite(run.history.train_loss[-1:]).all():
        raise ValueError("the training diverged, there is no model; lower --learning-rate")
    model.save(args.model_out)
    train_score, _ = _score(model, source.train)
    test_score, predicted = _score(model, source.test)
    _say(args, "")
    _say(args, _score_table([("train", train_score), ("test", test_score)]))
    _say(args, f"model     {args.model_out}")
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
        missing = report.write_report(args.report, training)
        note = f" (no pictures: {missing})" if missing else ""
        _say(args, f"report    {os.path.join(args.report, 'report.md')}{note}")
    if run.checkpoint is not None and os.path.exists(run.checkpoint):
        os.unlink(run.checkpoint)  # has done its duty
    print(f"test accuracy {test_score.accuracy:.4f}")
    return 0


def _make_folder(path: str) -> None:
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
    of_sgd = (*TRAINING_DEFAULTS, "checkpoint", "resume")
    other, foreign = ("sgd", of_sgd) if args.solver == "lbfgs" else ("lbfgs", (*LBFGS_DEFAULTS,))
    for name in foreign:
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            args.parser.error(f"{option}: goes with --solver {other} only")


def _run_sgd(
    args: argparse.Namespace, source: Source, checkpoint: str, kernels: Any, listeners: list[Lines]
) -> _Run:
    """Minibatch descent, from zero or from a checkpoint."""
    from .trainer import TrainingInterrupted

    assert source.test is not None
    beside = checkpoint if args.checkpoint is None else None
    if args.resume is None:
        trainer, model = _new_run(args, source, checkpoint, kernels, listeners)
    else:
        if args.resume != DEFAULT_CHECKPOINT:
            checkpoint = args.resume
        trainer = _resumed_run(args, checkpoint, kernels, listeners)
        model = trainer.model
    _say(args, _describe(source, kernels))
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

    from .model import SoftmaxModel
    from .solvers import FitResult, fit_lbfgs
    from .trainer import History, HistoryRow

    assert source.test is not None
    test = source.test
    model = _new_model(args, source, kernels)
    settings = _chosen(args, LBFGS_DEFAULTS)
    _say(args, _describe(source, kernels))
    history = History()
    n = len(source.train.y)
    start = time.perf_counter()

    def record(state: FitResult) -> None:
        nonlocal start
        seconds = time.perf_counter() - start
        there = SoftmaxModel(state.W, state.b, None, model.x_scale, kernels=kernels)
        penalty = float(np.sum(np.square(state.W, dtype=np.float64))) / (2 * settings["C"])
        row = HistoryRow(
            epoch=state.nit,
            train_loss=(state.fun - penalty) / n,
            train_accuracy=math.nan,  # would take another pass
            validation_loss=there.loss(*test),
            validation_accuracy=there.accuracy(*test),
            seconds=seconds,
            examples_per_second=n / seconds,
        )
        history.append(row)
        for listener in listeners:
            listener.on_iteration(row, state.grad_norm)
        start = time.perf_counter()

    with _shown(listeners):
        result = fit_lbfgs(model, *source.targets(source.train), **settings, callback=record)
    if not result.success:
        _complain(args, f"warning: not converged: {result.message}; see --max-iter and --tol")
    _say(args, f"after {result.nit} iterations: {result.message}")
    settings["outcome"] = f"{result.message}; {result.nfev} passes over the data"
    return _Run(model, history, _settings(args, settings, model, kernels), "iteration")


def _chosen(args: argparse.Namespace, defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings given, and the defaults of the others."""
    given = {name: getattr(args, name) for name in defaults}
    return defaults | {name: value for name, value in given.items() if value is not None}


def _new_model(args: argparse.Namespace, source: Source, kernels: Any) -> SoftmaxModel:
    """A model of zeros for the data."""
    from .model import SoftmaxModel

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
    from .trainer import Trainer

    if os.path.exists(checkpoint):
        _complain(
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
    from .trainer import Trainer

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
    from .threads import get_num_threads

    return {
        "data": args.data,
        "solver": args.solver,
        **{name.replace("_", " "): value for name, value in solver.items()},
        "dtype": model.W.dtype,
        "x scale": f"{model.x_scale:.6g}",
        "kernels": _kernels_name(kernels),
        "threads": get_num_threads(),
        "model": args.model_out,
    }


# ------------------------------------------------------------- evaluate, predict and the rest


def _evaluate(args: argparse.Namespace) -> int:
    from .plots import confusion_counts
    from .report import class_scores

    model = _load_model(args)
    source = _load(args)
    part, part_name = source.test, "test"
    if args.part == "train" or part is None:
        part, part_name = source.train, "train"
    names = tuple(map(str, _class_labels(model)))
    part = part._replace(y=source.indices_for(part, names))
    score, predicted = _score(model, part)
    counts = confusion_counts(part.y, predicted, len(names))
    recall, precision = class_scores(counts)
    per_class = list(zip(names, counts.sum(axis=1).tolist(), recall, precision, strict=True))
    if args.format == "json":
        classes = {
            name: {"examples": n, "recall": _number(r), "precision": _number(p)}
            for name, n, r, p in per_class
        }
        found = {
            "data": source.name,
            "part": part_name,
            **score._asdict(),
            "classes": classes,
            "confusion": counts.tolist(),
        }
        print(_json(found, sys.stdout, indent=2))
        return 0
    print(f"{source.name}, the {part_name} part: {score.n_examples} examples")
    width = max(len("class"), *map(len, names))
    print(f"{'class':<{width}}  examples  recall  precision")
    for name, n, r, p in per_class:
        print(f"{name:<{width}}  {n:8d}  {_fixed(r):>6}  {_fixed(p):>9}")
    print(f"loss {score.loss:.4f} nats")
    print(f"accuracy {score.accuracy:.4f}")
    return 0


def _predict(args: argparse.Namespace) -> int:
    model = _load_model(args)
    # Every input is looked at before the first line goes out.
    inputs = [(path, _read_examples(path, model, args)) for path in args.inputs]
    write = _write_json if args.format == "json" else _write_csv
    with _output(args.out) as file:
        write(file, _class_labels(model), _predictions(model, inputs))
    return 0


def _predictions(
    model: SoftmaxModel, inputs: list[tuple[str, NDArray[Any]]]
) -> Iterator[tuple[str, int, NDArray[Any]]]:
    """Path, row and probabilities of every example."""
    for path, X in inputs:
        for start in range(0, len(X), _BLOCK):
            probabilities = model.predict_proba(X[start : start + _BLOCK])
            for row, p in enumerate(probabilities, start):
                yield path, row, p


def _write_csv(
    file: TextIO, classes: list[Any], predictions: Iterator[tuple[str, int, NDArray[Any]]]
) -> None:
    import csv

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["input", "row", "label", "probability", *(f"P({name})" for name in classes)])
    for path, row, p in predictions:
        k = int(p.argmax())
        writer.writerow([path, row, classes[k], f"{p[k]:.6g}", *(f"{q:.6g}" for q in p)])


def _write_json(
    file: TextIO, classes: list[Any], predictions: Iterator[tuple[str, int, NDArray[Any]]]
) -> None:
    separator = "[\n"
    for path, row, p in predictions:
        k = int(p.argmax())
        probabilities = {str(c): _number(q) for c, q in zip(classes, p, strict=True)}
        found = {"input": path, "row": row, "label": classes[k], "probabilities": probabilities}
        file.write(separator + _json(found, file))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _read_examples(path: str, model: SoftmaxModel, args: argparse.Namespace) -> NDArray[Any]:
    """The examples in a file, of as many numbers as the model has features."""
    from . import pictures, sources

    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    D = model.W.shape[0]
    if sources.is_array(path):
        X = sources.open_array(path)
    else:
        X = pictures.read_picture(path, D, resize=args.resize)
        X = 255 - X if args.invert else X
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {X.dtype}, wanted numbers")
    if X.ndim in (1, 2) and X.size == D:  # one example
        X = X.reshape(1, D)
    if X.ndim < 2 or math.prod(X.shape[1:]) != D:
        raise ValueError(f"{path}: shape {X.shape}, wanted examples of {D} numbers each")
    return X


def _data(args: argparse.Namespace) -> int:
    from . import datasets

    if args.action == "describe":
        print(datasets.describe_fashion_mnist(args.root))
        return 0
    if args.action != "find":
        datasets.load_fashion_mnist(args.root, download=args.action == "download")
        print("Fashion-MNIST is whole: each file has the published SHA-256")
    found = datasets.find_fashion_mnist(args.root)
    for name, path in found.items():
        print(f"{name:<24}{path or 'not found'}")
    if None in found.values():
        raise FileNotFoundError("Fashion-MNIST is not all here; get it: softmax-ext data download")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from . import bench_table

    kernels = _kernels(args)
    print(f"kernels: {_kernels_name(kernels)}; microseconds a call, the best of several")
    for line in bench_table.lines(_or_default(kernels)):
        print(line, flush=True)
    return 0


def _info(args: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    from . import datasets, show_config

    show_config()
    for package, use in (("matplotlib", "pictures"), ("tqdm", "progress bars")):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = 'not installed: pip install "softmax-ext[cli]"'
        print(f"{package:<16}{found} ({use})")
    places = set(datasets.find_fashion_mnist().values())
    folders = {os.path.dirname(place) for place in places if place}
    where = ", ".join(sorted(folders)) if None not in places else "to be downloaded"
    print(f"{'Fashion-MNIST':<16}{where}")
    return 0


# ------------------------------------------------------------------------------------ shared


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)


def _kernels(args: argparse.Namespace) -> Any:
    """The kernel set to compute with, None for the default one; also sets the threads."""
    import softmax_ext

    if args.threads is not None:
        softmax_ext.set_num_threads(args.threads)
    if args.kernels is None:
        return None
    if args.kernels == "reference":
        return softmax_ext.reference
    try:
        return softmax_ext.Kernels(args.kernels)
    except ValueError as error:
        args.parser.error(f"--kernels: {error}")


def _or_default(kernels: Any) -> Any:
    import softmax_ext

    return softmax_ext.kernels if kernels is None else kernels


def _kernels_name(kernels: Any) -> str:
    isa = getattr(_or_default(kernels), "isa", None)
    return "reference (plain NumPy)" if isa is None else f"compiled, {isa}"


def _load(args: argparse.Namespace) -> Source:
    from .model import check_finite
    from .sources import load_source

    source = load_source(
        args.data, labels=args.labels, root=args.root, download=not args.no_download
    )
    for name, part in (("train", source.train), ("test", source.test)):
        if part is not None and part.X.dtype.kind == "f":
            try:
                check_finite(part.X.reshape(len(part.X), -1), part.y)
            except ValueError as error:
                raise ValueError(f"{source.name}, the {name} part: {error}") from error
    return source


def _load_model(args: argparse.Namespace) -> SoftmaxModel:
    from .errors import ModelFormatError
    from .model import SoftmaxModel

    kernels = _kernels(args)
    hint = "name a model that softmax-ext train wrote"
    try:
        return SoftmaxModel.load(args.model, kernels=kernels)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{args.model}: no such file; {hint}") from error
    except ModelFormatError as error:
        raise ModelFormatError(f"{error}; {hint}") from error


def _class_labels(model: SoftmaxModel) -> list[Any]:
    return [*range(model.W.shape[1])] if model.classes is None else model.classes.tolist()


def _describe(source: Source, kernels: Any) -> str:
    """What is trained on, and with what."""
    from .threads import get_num_threads

    assert source.test is not None
    shape = " x ".join(map(str, source.train.X.shape[1:]))
    return (
        f"{source.name}: {len(source.train.y)} examples to train on, {len(source.test.y)} to test,"
        f" {shape} {source.train.X.dtype}, {len(source.class_names)} classes\n"
        f"kernels: {_kernels_name(kernels)}; threads: {get_num_threads()}"
    )


def _score(model: SoftmaxModel, part: Part) -> tuple[Score, NDArray[np.intp]]:
    """Loss, accuracy and predicted class indices; the part's classes are the model's."""
    from .model import SoftmaxModel
    from .report import Score

    # Indices, not labels.
    plain = SoftmaxModel(model.W, model.b, None, model.x_scale, kernels=model.kernels)
    predicted = plain.predict(part.X)
    n = len(part.y)
    accuracy = np.count_nonzero(predicted == part.y) / n
    return Score(n, plain.loss(part.X, part.y), accuracy), predicted


def _score_table(scores: list[tuple[str, Score]]) -> str:
    lines = ["          examples  loss (nats)  accuracy"]
    lines += [
        f"{name:<8}{s.n_examples:>10}  {s.loss:>11.4f}  {s.accuracy:>8.4f}" for name, s in scores
    ]
    return "\n".join(lines)


def _json(value: Any, file: TextIO, **options: Any) -> str:
    """JSON for a file: text as it is, or escaped where the file cannot hold it."""
    import json

    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


def _number(value: Any) -> float | None:
    """For JSON, which has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None


def _fixed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that is replaced once everything has been written."""
    if path is None:
        yield sys.stdout
        return
    with _files.writing_text(path) as file:
        yield file


_COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "data": _data,
    "bench": _bench,
    "info": _info,
}
