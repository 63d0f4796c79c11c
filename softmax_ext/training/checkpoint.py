"""The checkpoint file: a `Run` and the settings it was made with, for `Trainer.resume`."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _npz
from ..model import OPTIONAL_ENTRIES, REQUIRED_ENTRIES
from .history import History, HistoryRow
from .run import Run
from .settings import Settings

_FILE_KIND = "softmax_ext checkpoint"
_FILE_VERSION = 1

_COLUMNS = HistoryRow._fields
_COUNTS = ("epoch", "batch", "n_correct", "n_counted")
_SUMS = ("loss_sum", "weight_sum", "seconds")

# Beside the model's, and their dtype kinds, for `_npz.read`.
_SETTINGS = {
    "epochs": "i",
    "batch_size": "i",
    "learning_rate": "f",  # nan: a schedule
    "momentum": "f",
    "weight_decay": "f",
    "shuffle": "i",
    "seed": "i",  # -1: None
    "average": "i",
    "label_smoothing": "f",
    "decay_bias": "i",
}
_REQUIRED_ENTRIES = {
    **_SETTINGS,
    **dict.fromkeys(_COUNTS, "i"),
    **dict.fromkeys(_SUMS, "f"),
    "generator_state": "u",
    "history": "f",
    "data": "U",
}
# In the order of the model's parameters.
_VELOCITY_ENTRIES = ("velocity_W", "velocity_b")
_SUM_ENTRIES = ("sum_W", "sum_b")
_OPTIONAL_ENTRIES = dict.fromkeys((*_VELOCITY_ENTRIES, *_SUM_ENTRIES), "f")


def write(path: str, settings: Settings, run: Run) -> None:
    """Replace the file by one of the run as it stands."""
    arrays = {name: np.array(_storable(getattr(settings, name))) for name in _SETTINGS}
    _npz.write(path, _FILE_KIND, _FILE_VERSION, {**arrays, **_arrays_of(run)})


def read(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the entries of a checkpoint file, for the functions below and `SoftmaxModel`."""
    return _npz.read(
        path,
        _FILE_KIND,
        _FILE_VERSION,
        {**REQUIRED_ENTRIES, **_REQUIRED_ENTRIES},
        {**OPTIONAL_ENTRIES, **_OPTIONAL_ENTRIES},
    )


def _storable(setting: Any) -> Any:
    """A setting as the file has it: nan for a schedule, -1 for no seed, 0 and 1 for a bool."""
    if callable(setting):
        return math.nan
    if setting is None:
        return -1
    return int(setting) if isinstance(setting, bool) else setting


def _scalar(entries: dict[str, NDArray[Any]], name: str) -> Any:
    if entries[name].shape != ():
        raise ValueError(f"{name}: shape {entries[name].shape} came, a single value was wanted")
    return entries[name].item()


def settings_in(entries: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the arguments that `Settings` was made with, a schedule being nan."""
    settings = {name: _scalar(entries, name) for name in _SETTINGS}
    if settings["seed"] == -1:
        settings["seed"] = None
    return settings


def _pack_generator_state(state: Any) -> NDArray[np.uint64]:
    """Write the state of a PCG64, two numbers of 128 bits and a spare half word, as six words."""
    pcg = state["state"]
    halves = [half for word in (pcg["state"], pcg["inc"]) for half in divmod(word, 1 << 64)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def _unpack_generator_state(words: NDArray[np.uint64]) -> Any:
    if words.shape != (6,):
        raise ValueError(f"generator_state: shape {words.shape} came, (6,) was wanted")
    high, low, inc_high, inc_low, has_uint32, uinteger = words.tolist()
    state: Any = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    # Refuses what is no such state.
    np.random.PCG64().state = state
    return state


def _arrays_of(run: Run) -> dict[str, NDArray[Any]]:
    """Return the entries of a checkpoint file that are not settings."""
    arrays = run.model._to_arrays()
    for name in (*_COUNTS, *_SUMS):
        arrays[name] = np.array(getattr(run, name))
    arrays["generator_state"] = _pack_generator_state(run.generator_state)
    arrays["history"] = np.array(list(run.history), np.float64).reshape(-1, len(_COLUMNS))
    arrays["data"] = np.array(run.data_description)
    for name, velocity in zip(_VELOCITY_ENTRIES, run.sgd.velocities, strict=False):
        if velocity is not None:
            arrays[name] = velocity
    for name, total in zip(_SUM_ENTRIES, run.sgd.sums or (), strict=False):
        arrays[name] = total
    return arrays


def restore(run: Run, entries: dict[str, NDArray[Any]]) -> None:
    """Take everything but the model from the entries of a checkpoint file, or ValueError."""
    for name in (*_COUNTS, *_SUMS):
        setattr(run, name, _scalar(entries, name))
    if min(getattr(run, name) for name in _COUNTS) < 0:
        raise ValueError("a count is negative")
    run.generator_state = _unpack_generator_state(entries["generator_state"])
    run.data_description = _scalar(entries, "data")
    history = entries["history"]
    if history.shape != (run.epoch, len(_COLUMNS)):
        raise ValueError(f"a history of shape {history.shape} after {run.epoch} epochs")
    run.history = History([HistoryRow(int(row[0]), *row[1:]) for row in history.tolist()])
    for name, velocity in zip(_VELOCITY_ENTRIES, run.sgd.velocities, strict=False):
        stored = entries.get(name)
        if (stored is None) != (velocity is None):
            raise ValueError(f"{name} and momentum do not fit each other")
        if velocity is not None and stored is not None:
            if stored.shape != velocity.shape or stored.dtype != velocity.dtype:
                raise ValueError(f"{name}: {stored.dtype} of shape {stored.shape}")
            velocity[...] = stored
    if "sum_W" in entries:
        run.sgd.start_averaging()
        for name, total in zip(_SUM_ENTRIES, run.sgd.sums or (), strict=False):
            if name not in entries or entries[name].shape != total.shape:
                raise ValueError(f"{name}: missing, or not of shape {total.shape}")
            total[...] = entries[name]
