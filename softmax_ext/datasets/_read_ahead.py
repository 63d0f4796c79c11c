"""The next item of an iterator, fetched by a thread while the present one is worked on.

Reading takes a processor, too. Where it is what takes the time, the kernels leave it one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

from .. import threads

_Item = TypeVar("_Item")


class _Slot:
    """A place for one item on its way from the thread to its caller."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # An item in a tuple; an empty one is the end.
        self._items: list[tuple[object, ...]] = []
        self._error: BaseException | None = None
        self._is_closed = False

    def put(self, item: tuple[object, ...], error: BaseException | None = None) -> bool:
        """Wait until there is room; return whether anybody still wants items."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._items)
            self._items, self._error = [item], error
            self._changed.notify_all()
            return not self._is_closed

    def get(self) -> tuple[tuple[object, ...], bool]:
        """Return what comes next, and whether it had to be waited for."""
        with self._changed:
            is_late = not self._items
            self._changed.wait_for(lambda: self._items)
            item = self._items.pop()
            self._changed.notify_all()
            if self._error is not None:
                raise self._error
            return item, is_late

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def read_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield what `items` does, of which a thread has the next one ready.

    Beside the item that the caller has, one waits and one is being made. What `items` raises is
    raised here, in its place. When the caller is done, early or not, `items` is closed and the
    thread has ended: go to the end of this generator, or close it.

    After an item that had to be waited for, calls made here use one thread less.
    """
    slot = _Slot()

    def read() -> None:
        try:
            for item in items:
                if not slot.put((item,)):
                    return
                del item  # this thread keeps nothing that the caller may have done with
            slot.put(())
        except BaseException as error:  # the caller's to handle
            slot.put((), error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=read, name="softmax_ext reader", daemon=True)
    try:
        thread.start()
        while True:
            item, is_late = slot.get()
            if not item:
                break
            with threads.num_threads(max(1, threads.get_num_threads() - is_late)):
                yield item[0]  # type: ignore[misc]
            del item
    finally:
        slot.close()
        if thread.ident is not None:
            thread.join()
