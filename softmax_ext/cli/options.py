"""The words of the command line, and their help; what they do is in `softmax_ext.cli`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["DEFAULT_CHECKPOINT", "LBFGS_DEFAULTS", "TRAINING_DEFAULTS", "make_parser"]

#: What ``--resume`` without a value gives; no path is empty.
DEFAULT_CHECKPOINT = ""

#: Filled in late: a resumed run has its checkpoint's settings.
TRAINING_DEFAULTS: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 256,
    "learning_rate": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "seed": 0,
    "average": True,
}

#: Likewise, of ``--solver lbfgs``.
LBFGS_DEFAULTS: dict[str, Any] = {"C": 1.0, "tol": 1e-4, "max_iter": 1000, "standardize": False}


def _whole(least: int) -> Any:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"{text} came, a whole number of at least {least} was wanted"
            )
        return number

    return convert


def _real(text: str) -> float:
    """A finite number, also as a fraction such as 1/255."""
    try:
        numerator, _, denominator = text.partition("/")
        number = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} came, a number was wanted")
    return number


def _not_negative(text: str) -> float:
    number = _real(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} came, a number of at least 0 was wanted")
    return number


def _positive(text: str) -> float:
    number = _real(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} came, a number above 0 was wanted")
    return number


_EXAMPLES = """\
examples:
  softmax-ext train --data two-by-two
      a first model, of cats, chickens and dogs, in a second
  softmax-ext train --report report
      ten epochs on Fashion-MNIST, and a folder with pictures of what it learnt
  softmax-ext evaluate model.npz
  softmax-ext predict model.npz photo.jpg --resize --invert

softmax-ext COMMAND --help tells more, with examples.
"""
_TRAIN_EXAMPLES = """\
examples:
  softmax-ext train
      ten epochs on Fashion-MNIST; the model goes to model.npz
  softmax-ext train --epochs 20 --learning-rate 0.05 --report report
      with other settings, and a folder with report.md and pictures
  softmax-ext train --solver lbfgs --C 0.01
      to the regularised optimum, that of scikit-learn's LogisticRegression
  softmax-ext train --data two-by-two
      cats, chickens and dogs of 2 x 2 pixels, without any file
  softmax-ext train --data images.npy --labels labels.npy --model-out mine.npz
      your own data; a tenth of it is held out to test
  softmax-ext train --resume
      goes on where Ctrl-C, or worse, stopped the training

An .npz holds train_images and train_labels, x_train and y_train, or X and y.
The test is on test_images and test_labels (x_test and y_test, X_test and
y_test), if they are there, and class_names names the classes. A folder holds
the four IDX files under MNIST's names.
"""
_EVALUATE_EXAMPLES = """\
examples:
  softmax-ext evaluate model.npz
  softmax-ext evaluate model.npz --data mine.npz --format json
"""
_PREDICT_EXAMPLES = """\
examples:
  softmax-ext predict model.npz images.npy > labels.csv
  softmax-ext predict model.npz t10k-images-idx3-ubyte.gz --format json
  softmax-ext predict model.npz photo.jpg --resize --invert
      a dark thing on a bright ground; Fashion-MNIST has bright things on black

A picture is read in grey, 0 for black to 255 for white, turned as its EXIF
data say. What is transparent is put on white. 16 bits are scaled to 255, and
so are floats from 0 to 1. Of several pictures in a file the first is taken.
A model trained on numbers of another scale takes .npy files of those.
"""
_PROBE_EXAMPLES = """\
examples:
  softmax-ext probe --data embeddings.npy --labels labels.npy --report report
      a tenth of the rows chooses the penalty; all are fitted with it
  softmax-ext probe --data train.npy --labels train-labels.npy
      --validation valid.npy --validation-labels valid-labels.npy
      --test test.npy --test-labels test-labels.npy
  softmax-ext probe --data all.npz --model-out probe.npz
      an .npz with X and y, X_test and y_test, as for softmax-ext train
"""
_DATA_EXAMPLES = """\
examples:
  softmax-ext data
  softmax-ext data download
  softmax-ext data verify --root /mnt/fashion-mnist
"""
_BENCH_EXAMPLES = """\
examples:
  softmax-ext bench
  softmax-ext bench --threads 1 --kernels baseline
"""
_INFO_EXAMPLES = """\
example:
  softmax-ext info
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line.

    What it returns has ``command``, the name of the command, and ``parser``, the command's own
    parser, for errors found later.
    """
    parser = argparse.ArgumentParser(
        prog="softmax-ext",
        description="Softmax regression: train it, test it, use it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_probe(commands)
    _add_data(commands)
    _add_bench(commands)
    _add_info(commands)
    return parser


_DEBUG_HELP = "show the traceback of a failure"


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import softmax_ext

        print(f"softmax-ext {softmax_ext.__version__}")
        parser.exit()


def _add_command(commands: Any, name: str, what: str, examples: str) -> Any:
    command = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Without a default, which would undo a --debug before the command's name.
    command.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP
    )
    command.set_defaults(parser=command)
    return command


def _add_data_options(command: Any) -> None:
    group = command.add_argument_group("data")
    group.add_argument(
        "--data",
        default="fashion-mnist",
        metavar="WHAT",
        help="fashion-mnist (the default), two-by-two, an .npz, an .npy, an IDX file,"
        " a folder of IDX files; or, read piece by piece, 'part-*.npy' and .parquet files",
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="the .npy or IDX file of labels for --data FILE, 'labels-*.npy' for several, or the"
        " column of .parquet files (default there: label)",
    )
    _add_root(group)
    group.add_argument(
        "--no-download", action="store_true", help="fail where Fashion-MNIST is not on this machine"
    )


def _add_root(group: Any) -> None:
    group.add_argument("--root", metavar="FOLDER", help="look for Fashion-MNIST here first")


def _add_machine_options(command: Any) -> None:
    group = command.add_argument_group("machine")
    group.add_argument(
        "--threads", type=_whole(1), metavar="N", help="default: the CPUs this process may use"
    )
    group.add_argument(
        "--kernels",
        metavar="NAME",
        help="an instruction set (baseline, avx2, avx512, neon) instead of the best that can run"
        " here, or reference for plain NumPy",
    )


def _add_train(commands: Any) -> None:
    command = _add_command(commands, "train", "train a model and test it", _TRAIN_EXAMPLES)
    _add_data_options(command)
    group = command.add_argument_group("training")
    group.add_argument(
        "--solver",
        choices=["sgd", "lbfgs"],
        default="sgd",
        help="minibatch descent (the default), or L-BFGS to the regularised optimum",
    )
    group = command.add_argument_group("training with --solver sgd")
    for name, convert, what in (
        ("epochs", _whole(1), "times through the data"),
        ("batch_size", _whole(1), "examples in a minibatch"),
        ("learning_rate", _not_negative, "step size"),
        ("momentum", _not_negative, "momentum, as PyTorch's SGD has it"),
        ("weight_decay", _not_negative, "weight decay, likewise"),
        ("seed", _whole(0), "of the random order of the examples"),
    ):
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=convert,
            metavar="N" if convert is not _not_negative else "X",
            help=f"{what} (default: {TRAINING_DEFAULTS[name]})",
        )
    group.add_argument(
        "--average",
        action=argparse.BooleanOptionalAction,
        help="end with the mean of the last epoch's weights, not with the last step's"
        " (default: --average)",
    )
    group = command.add_argument_group("training with --solver lbfgs")
    for name, convert, what in (
        ("C", _positive, "inverse strength of the penalty, the squares of the weights"),
        ("tol", _not_negative, "converged when no entry of the mean gradient is larger"),
        ("max_iter", _whole(1), "most iterations"),
    ):
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=convert,
            metavar="N" if name == "max_iter" else "X",
            help=f"{what} (default: {LBFGS_DEFAULTS[name]:g})",
        )
    group.add_argument(
        "--standardize",
        action="store_true",
        default=None,
        help="penalise the weights of features centred and divided by their deviations; the model"
        " takes the data as they are",
    )
    group = command.add_argument_group("model")
    group.add_argument(
        "--dtype", choices=["float32", "float64"], help="of the weights (default: float32)"
    )
    group.add_argument(
        "--x-scale",
        type=_real,
        metavar="X",
        help="multiplies the examples (default: 1/255 for bytes, otherwise 1)",
    )
    group = command.add_argument_group("results")
    group.add_argument(
        "--model-out", default="model.npz", metavar="FILE", help="default: %(default)s"
    )
    group.add_argument(
        "--report", metavar="FOLDER", help="write report.md there, with pictures and history.csv"
    )
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="written after each epoch and on Ctrl-C, and kept (default: beside the model, as"
        " NAME.checkpoint.npz, and removed at the end); with lbfgs, after each pass, and gone on"
        " with if it is there (default: none)",
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help="go on from this checkpoint (default: that of --checkpoint), with its settings;"
        " --epochs and --learning-rate may change",
    )
    group.add_argument("--quiet", action="store_true", help="print the test accuracy only")
    _add_machine_options(command)


def _add_probe(commands: Any) -> None:
    command = _add_command(
        commands,
        "probe",
        "choose, fit and test a linear probe on features",
        _PROBE_EXAMPLES,
    )
    group = command.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="features to train on, (N, D): an .npy, an .npz with labels and perhaps a test"
        " part, or Parquet files (pyarrow)",
    )
    group.add_argument(
        "--labels", metavar="FILE", help="their labels: an .npy, or Parquet's column"
    )
    for part, use in (
        ("validation", "to choose the penalty by (default: a tenth of the rows)"),
        ("test", "to test with (default: the test part of an .npz)"),
    ):
        group.add_argument(f"--{part}", metavar="FILE", help=f"features {use}")
        group.add_argument(f"--{part}-labels", metavar="FILE", help="their labels")
    group = command.add_argument_group("protocol")
    group.add_argument(
        "--C", nargs="+", type=_positive, metavar="X", help="values to choose from, instead of 45"
        " from 1e-6 to 1e5, or of 97 from 1e-6 to 1e6 to bisect"
    )  # fmt: skip
    group.add_argument(
        "--search", choices=["path", "bisection"], default="path", help="fit all of the values, or"
        " those that halving about the best leads to (default: %(default)s)"
    )  # fmt: skip
    group.add_argument(
        "--scoring", choices=["accuracy", "loss"], default="accuracy", help="default: %(default)s"
    )
    group.add_argument(
        "--no-standardize", action="store_true", help="leave the scales of the features as they are"
    )
    group.add_argument(
        "--tol", type=_not_negative, default=1e-4, metavar="X", help="as of train: %(default)s"
    )
    group.add_argument(
        "--max-iter", type=_whole(1), default=1000, metavar="N", help="for each value: %(default)s"
    )
    group = command.add_argument_group("results")
    group.add_argument(
        "--model-out", default="probe.npz", metavar="FILE", help="default: %(default)s"
    )
    group.add_argument(
        "--report", metavar="FOLDER", help="write probe.csv and the curve's picture, probe.png"
    )
    group.add_argument("--quiet", action="store_true", help="print the last line only")
    _add_machine_options(command)


def _add_evaluate(commands: Any) -> None:
    command = _add_command(
        commands, "evaluate", "test a model on labelled data", _EVALUATE_EXAMPLES
    )
    command.add_argument("model", metavar="MODEL", help="a model that train wrote")
    _add_data_options(command)
    command.add_argument(
        "--part",
        choices=["test", "train"],
        default="test",
        help="of the data (default: test; data of one part is taken whole)",
    )
    command.add_argument("--format", choices=["text", "json"], default="text")
    _add_machine_options(command)


def _add_predict(commands: Any) -> None:
    command = _add_command(commands, "predict", "label images or other examples", _PREDICT_EXAMPLES)
    command.add_argument("model", metavar="MODEL", help="a model that train wrote")
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="pictures (PNG, JPEG, ...), .npy files, IDX files",
    )
    command.add_argument(
        "--format", choices=["csv", "json"], default="csv", help="default: %(default)s"
    )
    command.add_argument("--out", metavar="FILE", help="default: standard output")
    command.add_argument(
        "--resize", action="store_true", help="bring pictures to the model's number of pixels"
    )
    command.add_argument("--invert", action="store_true", help="turn pictures' grey values round")
    _add_machine_options(command)


def _add_data(commands: Any) -> None:
    command = _add_command(
        commands,
        "data",
        "find, download, verify or describe Fashion-MNIST",
        _DATA_EXAMPLES,
    )
    command.add_argument(
        "action",
        nargs="?",
        choices=["find", "download", "verify", "describe"],
        default="find",
        help="find (the default) reads nothing; the others check every file's SHA-256",
    )
    _add_root(command)


def _add_bench(commands: Any) -> None:
    command = _add_command(
        commands,
        "bench",
        "measure the kernels against plain NumPy, in less than a minute",
        _BENCH_EXAMPLES,
    )
    _add_machine_options(command)


def _add_info(commands: Any) -> None:
    _add_command(commands, "info", "print versions, instruction sets and threads", _INFO_EXAMPLES)
