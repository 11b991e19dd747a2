"""A model that loads behind the prompt: its progress, its backend once it is there, or why it is not."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from qwenchat.backends.base import Backend
from qwenchat.backends.importing import no_garbage_collection
from qwenchat.errors import Interrupted, QwenchatError
from qwenchat.language import tr

Progress = Callable[[str, "float | None"], None]
Notice = Callable[[str], None]
Load = Callable[[Progress, Notice], Backend]
"""Loads a model, telling each stage and what the user should know."""

_POLL_SECONDS = 0.05


class BackgroundLoad:
    """One model being loaded in a thread of its own.

    Args:
        load: what loads it; runs once, in the thread.
        on_change: called from the thread whenever the progress moves, to redraw what shows it.
        after: a load that was given up; it is waited for, so that two models never fill the memory.

    Attributes:
        backend: the model, once it is there.
        error: why it is not, once that is known. It is kept until somebody asks.
        notices: lines for the user, collected until somebody takes them.
    """

    def __init__(
        self,
        load: Load,
        on_change: Callable[[], None] = lambda: None,
        after: BackgroundLoad | None = None,
    ) -> None:
        self.backend: Backend | None = None
        self.error: QwenchatError | None = None
        self.notices: list[str] = []
        self._stage = "starting"
        self._fraction: float | None = None
        self._load = load
        self._on_change = on_change
        self._after = after
        self._given_up = False
        self._done = threading.Event()
        # A daemon: a load that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="model-loader", daemon=True)

    def start(self) -> None:
        """Begins; not before the prompt is there, since importing torch holds the interpreter's lock."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether :meth:`start` was called."""
        return self._thread.ident is not None

    @property
    def progress(self) -> str:
        """What goes on, in a few words; empty once it is over."""
        if self._done.is_set():
            return ""
        stage = tr(self._stage)
        return stage if self._fraction is None else f"{stage} {self._fraction:.0%}"

    def wait(self, cancel: threading.Event) -> Backend:
        """The model, once it is loaded.

        Raises:
            QwenchatError: it could not be loaded.
            Interrupted: ``cancel`` was set before it was; the load itself goes on.
        """
        while not self._done.wait(_POLL_SECONDS):
            if cancel.is_set():
                raise Interrupted(tr("taken back: the model is still loading"))
        if self.error is not None:
            raise self.error
        assert self.backend is not None
        return self.backend

    def give_up(self) -> None:
        """Frees the model, as soon as it is loaded; another may be loaded after it."""
        self._given_up = True
        if self._done.is_set() and self.backend is not None:
            self.backend.close()

    def _run(self) -> None:
        if self._after is not None and self._after.started:
            self._after._done.wait()
            self._after = None
        try:
            gc.unfreeze()  # a model that was closed may be garbage now
            gc.collect()
            with no_garbage_collection():
                self.backend = self._load(self._report, self.notices.append)
                # Else each later collection would walk all of torch again: 0.1 s in which no key is heard.
                gc.freeze()
        except QwenchatError as error:
            self.error = error
        except MemoryError:
            self.error = QwenchatError(
                tr("out of memory while loading the model"), tr("a smaller model may fit")
            )
        except Exception as error:  # noqa: BLE001 - the thread's caller is not there to catch it
            self.error = QwenchatError(
                tr("the model failed to load: {error}", error=f"{type(error).__name__}: {error}")
            )
            self.error.__cause__ = error
        finally:
            if self._given_up and self.backend is not None:
                self.backend.close()
            self._done.set()
            self._on_change()

    def _report(self, stage: str, fraction: float | None) -> None:
        self._stage, self._fraction = stage, fraction
        self._on_change()
