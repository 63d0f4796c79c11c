"""A fit's checkpoint: what every evaluation found, so that the fit can be gone through again.

A fit is determined by what its evaluations return. Going through it again, with those of the file
in their places, brings it to where it was, whatever state its solver keeps, and to the same bits;
and it takes no time beside a pass over data that is worth a checkpoint.

The file is written at its end only, one record after each evaluation. A record has its own digest,
so one that was cut short by a kill is known for what it is: the fit goes on from the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from .. import _files
from ..errors import ModelFormatError
from .objective import Doubles, Evaluation, Floats, Objective, Sample

_MAGIC = b"softmax_ext fit 1\n"
_MOST_HEADER_BYTES = 1 << 16
# Of a record: digest of the rest, digest of the point, value, total weight, bytes of the gradient.
_RECORD = struct.Struct("<16s16sddQ")


class EvaluationLog:
    """The file.

    Parameters
    ----------
    path : str or path-like
        The file, to be made or gone on with.
    objective : Objective
        Whose evaluations they are. If it has a method `description`, the fit goes on with data of
        the same description only.
    start : ndarray
        Where the fit begins, unless the file says so.
    settings : mapping
        What makes another fit of it.

    Raises
    ------
    ModelFormatError
        If the file is no such file.
    ValueError
        If it is of another fit.
    OSError
        If it cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        objective: Objective,
        start: Doubles,
        settings: Mapping[str, Any],
    ) -> None:
        self._path = os.fspath(path)
        self._header: dict[str, Any] = {
            **settings,
            "shape": list(objective.shape),
            "has_intercept": bool(objective.has_intercept),
            "dtype": str(objective.dtype),
        }
        self._describe: Callable[[], str] = getattr(objective, "description", str)
        # Where the next record is, and whether there may be one to be read.
        self._at = 0
        self._is_replaying = True
        try:
            with open(self._path, "rb", opener=_files.open_without_waiting) as file:
                self.start = self._begin_with(file)
        except FileNotFoundError:
            self.start = start
            self._is_replaying = False

    def _begin_new(self) -> None:
        """Write the header, once an evaluation has shown the data."""
        header = json.dumps({**self._header, "data": self._describe()}).encode()
        content = struct.pack("<I", len(header)) + header + self.start.astype("<f8").tobytes()
        with _files.writing(self._path) as file:
            file.write(_MAGIC + content + hashlib.sha256(content).digest())
        self._at = len(_MAGIC) + len(content) + 32

    def _begin_with(self, file: BinaryIO) -> Doubles:
        """Read the header; refuse that of another fit."""
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelFormatError(f"{self._path}: not the checkpoint of a fit")
        content = file.read(4)
        n = struct.unpack("<I", content)[0] if len(content) == 4 else _MOST_HEADER_BYTES + 1
        if n > _MOST_HEADER_BYTES:
            raise ModelFormatError(f"{self._path}: damaged")
        content += file.read(n)
        try:
            header = json.loads(content[4:])
        except ValueError as error:
            raise ModelFormatError(f"{self._path}: damaged ({error})") from error
        if not isinstance(header, dict):
            raise ModelFormatError(f"{self._path}: damaged")
        for name, wanted in {**self._header, "data": self._describe()}.items():
            if header.get(name) != wanted:
                raise ValueError(
                    f"checkpoint: {self._path} is of a fit with {name} {header.get(name)!r}, this "
                    f"one has {wanted!r}; name another file, or remove it to begin anew"
                )
        shape = tuple(self._header["shape"])
        content += file.read(8 * int(np.prod(shape)))
        if file.read(32) != hashlib.sha256(content).digest():
            raise ModelFormatError(f"{self._path}: damaged")
        self._at = file.tell()
        return np.frombuffer(content, "<f8", offset=4 + n).reshape(shape).astype(np.float64)

    def recall(self, theta: Doubles, dtype: np.dtype[Any]) -> Evaluation | None:
        """Return the next evaluation in the file, if it is the one of this point."""
        if not self._is_replaying:
            return None
        with open(self._path, "rb") as file:
            file.seek(self._at)
            head = file.read(_RECORD.size)
            if len(head) == _RECORD.size:
                digest, point, value, weight, n = _RECORD.unpack(head)
                n_wanted = theta.size * 8
                data = file.read(n) if n == n_wanted else b""
                is_sound = len(data) == n_wanted and digest == _digest(head[16:], data)
                if is_sound and point == _digest(_name(theta, dtype)):
                    self._at = file.tell()
                    gradient = np.frombuffer(data, "<f8").reshape(theta.shape)
                    return Evaluation(value, gradient.astype(np.float64), weight)
        self._is_replaying = False
        return None

    def remember(self, theta: Doubles, dtype: np.dtype[Any], found: Evaluation) -> None:
        """Write an evaluation behind those that this fit made, in place of any others."""
        if not self._at:
            self._begin_new()
        data = np.ascontiguousarray(found.gradient, "<f8").tobytes()
        point = _digest(_name(theta, dtype))
        head = _RECORD.pack(bytes(16), point, found.value, found.total_weight, len(data))[16:]
        with open(self._path, "r+b") as file:
            file.truncate(self._at)
            file.seek(self._at)
            file.write(_digest(head, data) + head + data)
            file.flush()
            os.fsync(file.fileno())
            self._at = file.tell()


class LoggedObjective:
    """An objective that asks the log first. Keeps the protocol `objective.Objective`."""

    def __init__(self, objective: Objective, log: EvaluationLog) -> None:
        self._objective, self._log = objective, log
        self.kernels = getattr(objective, "kernels", None)
        self.shape, self.has_intercept = objective.shape, objective.has_intercept
        self.dtype, self.is_sparse = objective.dtype, objective.is_sparse

    @property
    def n_rows(self) -> int:
        return self._objective.n_rows

    @property
    def cost(self) -> float:
        return self._objective.cost

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point; see the protocol."""
        found = self._log.recall(theta, self.dtype)
        if found is None:
            found = self._objective.value_and_gradient(theta)
            self._log.remember(theta, self.dtype, found)
        return found

    def hessian_product(self, theta: Doubles, V: Doubles) -> Floats:
        """Return the Hessian at a point times a direction; see the protocol."""
        return self._objective.hessian_product(theta, V)

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        return self._objective.moments()

    def sample(self, n: int, *, by_length: bool) -> Sample:
        """Draw n rows by their weight; see the protocol."""
        return self._objective.sample(n, by_length=by_length)

    def in_float64(self) -> LoggedObjective:
        """Return the same sum, computed in float64."""
        return LoggedObjective(self._objective.in_float64(), self._log)


def _name(theta: Doubles, dtype: np.dtype[Any]) -> bytes:
    return str(dtype).encode() + np.ascontiguousarray(theta, "<f8").tobytes()


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()[:16]
