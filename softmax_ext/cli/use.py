"""``softmax-ext evaluate`` and ``predict``: what a trained model is for."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from numpy.typing import NDArray

from .. import _files
from .shared import class_labels, load_data, load_model, score_of

if TYPE_CHECKING:
    from ..model import SoftmaxModel

_BLOCK = 4096  # rows predicted at a time


def evaluate(args: argparse.Namespace) -> int:
    from ..plots import confusion_counts
    from .report import class_scores

    model = load_model(args)
    source = load_data(args)
    part, part_name = source.test, "test"
    if args.part == "train" or part is None:
        part, part_name = source.train, "train"
    names = tuple(map(str, class_labels(model)))
    part = part._replace(y=source.indices_for(part, names))
    score, predicted = score_of(model, part)
    counts = confusion_counts(part.y, predicted, len(names))
    recall, precision = class_scores(counts)
    per_class = list(zip(names, counts.sum(axis=1).tolist(), recall, precision, strict=True))
    if args.format == "json":
        classes = {
            name: {"examples": n, "recall": _number(r), "precision": _number(p)}
            for name, n, r, p in per_class
        }
        record = {
            "data": source.name,
            "part": part_name,
            **score._asdict(),
            "classes": classes,
            "confusion": counts.tolist(),
        }
        print(_json(record, sys.stdout, indent=2))
        return 0
    print(f"{source.name}, the {part_name} part: {score.n_examples} examples")
    width = max(len("class"), *map(len, names))
    print(f"{'class':<{width}}  examples  recall  precision")
    for name, n, r, p in per_class:
        print(f"{name:<{width}}  {n:8d}  {_fixed(r):>6}  {_fixed(p):>9}")
    print(f"loss {score.loss:.4f} nats")
    print(f"accuracy {score.accuracy:.4f}")
    return 0


def predict(args: argparse.Namespace) -> int:
    model = load_model(args)
    # Every input is looked at before the first line goes out.
    inputs = [(path, _read_examples(path, model, args)) for path in args.inputs]
    write = _write_json if args.format == "json" else _write_csv
    with _output(args.out) as file:
        write(file, class_labels(model), _predictions(model, inputs))
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
        record = {"input": path, "row": row, "label": classes[k], "probabilities": probabilities}
        file.write(separator + _json(record, file))
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
        raise ValueError(f"{path}: {X.dtype} came, numbers were wanted")
    if X.ndim in (1, 2) and X.size == D:  # one example
        X = X.reshape(1, D)
    if X.ndim < 2 or math.prod(X.shape[1:]) != D:
        raise ValueError(f"{path}: shape {X.shape} came, examples of {D} numbers each were wanted")
    return X


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
