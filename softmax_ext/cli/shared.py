"""What several commands do: words to the user, kernels, data, models and their scores."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..model import SoftmaxModel
    from .report import Score
    from .sources import Part, Source


def complain(args: argparse.Namespace, message: str) -> None:
    print(f"softmax-ext {args.command}: {message}", file=sys.stderr)


def say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)


def chosen_kernels(args: argparse.Namespace) -> Any:
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


def or_default(kernels: Any) -> Any:
    import softmax_ext

    return softmax_ext.kernels if kernels is None else kernels


def name_of(kernels: Any) -> str:
    isa = getattr(or_default(kernels), "isa", None)
    return "reference (plain NumPy)" if isa is None else f"compiled, {isa}"


def load_data(args: argparse.Namespace) -> Source:
    from ..model import check_finite
    from .sources import load_source

    source = load_source(
        args.data, labels=args.labels, root=args.root, download=not args.no_download
    )
    for name, part in (("train", source.train), ("test", source.test)):
        # Blocks are checked in the first pass.
        is_array = part is not None and isinstance(part.X, np.ndarray)
        if part is not None and is_array and part.X.dtype.kind == "f":
            try:
                check_finite(part.X.reshape(len(part.X), -1), part.y)
            except ValueError as error:
                raise ValueError(f"{source.name}, the {name} part: {error}") from error
    return source


def load_model(args: argparse.Namespace) -> SoftmaxModel:
    from ..errors import ModelFormatError
    from ..model import SoftmaxModel

    kernels = chosen_kernels(args)
    hint = "name a model that softmax-ext train wrote"
    try:
        return SoftmaxModel.load(args.model, kernels=kernels)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{args.model}: no such file; {hint}") from error
    except ModelFormatError as error:
        raise ModelFormatError(f"{error}; {hint}") from error


def class_labels(model: SoftmaxModel) -> list[Any]:
    return [*range(model.W.shape[1])] if model.classes is None else model.classes.tolist()


def score_of(model: SoftmaxModel, part: Part) -> tuple[Score, NDArray[np.intp]]:
    """Loss, accuracy and predicted class indices; the part's classes are the model's."""
    from ..model import SoftmaxModel
    from .report import Score
    from .sources import examples

    # Without class labels it predicts indices.
    unlabelled = SoftmaxModel(model.W, model.b, None, model.x_scale, kernels=model.kernels)
    predicted = unlabelled.predict(part.X)
    n = len(part.y)
    accuracy = np.count_nonzero(predicted == part.y) / n
    return Score(n, unlabelled.loss(*examples(part)), accuracy), predicted


def score_table(scores: list[tuple[str, Score]]) -> str:
    lines = ["          examples  loss (nats)  accuracy"]
    lines += [
        f"{name:<8}{s.n_examples:>10}  {s.loss:>11.4f}  {s.accuracy:>8.4f}" for name, s in scores
    ]
    return "\n".join(lines)
