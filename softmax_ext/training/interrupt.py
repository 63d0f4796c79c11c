"""Ctrl-C during a training: not in the midst of a step, and with word of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType, TracebackType


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during a `Trainer.fit` with a checkpoint; the message says where that lies."""

    def __init__(self, message: str, checkpoint: str | None) -> None:
        super().__init__(message)
        #: The checkpoint file to resume from; None if there is none.
        self.checkpoint = checkpoint


class InterruptGuard:
    """Holds Ctrl-C back while a step is half done; otherwise lets it through at once.

    Outside the main thread, and where nobody handles SIGINT in Python, there is nothing to do.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._held = False
        self._pending = False

    def __enter__(self) -> InterruptGuard:
        import signal
        import threading

        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import signal

        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        elif self._handler is not None:
            self._handler(number, frame)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._pending and self._handler is not None:
            import signal

            self._pending = False
            self._handler(signal.SIGINT, None)
