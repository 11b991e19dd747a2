"""A model that loads behind the prompt: its progress, its backend once it is there, or why it is not."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from qwenchat.chat.backend import Backend
from qwenchat.errors import InsufficientMemoryError, Interrupted, QwenchatError, cannot_import
from qwenchat.i18n.language import tr
from qwenchat.models.progress import Progress

Notice = Callable[[str], None]


class Load(Protocol):
    """Loads a model, telling each stage and what the user should know."""

    def __call__(self, progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        """Loads it; what it makes may be frozen for the garbage collector.

        Args:
            settle: whether to settle for less where memory does not suffice: else that is an error.

        Raises:
            QwenchatError: it cannot be loaded.
        """


_POLL_SECONDS = 0.05


class BackgroundLoad:
    """One model being loaded in a thread of its own, in place of the one that is there.

    That one is let go once the other is there. Where memory does not hold both it is let go before, and
    loaded again if the other fails after all: so a model that worked is there until another works.

    Args:
        name: the model.
        load: what loads it; called in the thread.
        on_change: called from the thread whenever the progress moves, to redraw what shows it.
        notice: told what the user should know; called in the thread.
        after: the load before this one, which is waited for, and whose model this one replaces.

    Attributes:
        name: the model that is, or is to be, loaded; after a failure that of the one that is still there.
        backend: the model, once it is there.
        error: why there is none, once that is known. It is kept until somebody asks.
        failure: why there is still the model that was there before.
    """

    def __init__(
        self,
        name: str,
        load: Load,
        *,
        on_change: Callable[[], None] = lambda: None,
        notice: Notice = lambda line: None,
        after: BackgroundLoad | None = None,
    ) -> None:
        self.name = name
        self.backend: Backend | None = None
        self.error: QwenchatError | None = None
        self.failure: QwenchatError | None = None
        self._untold: QwenchatError | None = None
        self._stage = "starting"
        self._fraction: float | None = None
        self._load = load
        self._on_change = on_change
        self._notice = notice
        self._after = after
        self._done = threading.Event()
        # A daemon: a load that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="model-loader", daemon=True)

    def start(self) -> None:
        """Begins; not before the prompt is there, since importing torch holds the interpreter's lock."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """True if :meth:`start` was called."""
        return self._thread.ident is not None

    @property
    def progress(self) -> str:
        """The stage of loading, in a few words; empty once it is over."""
        if self._done.is_set():
            return ""
        stage = tr(self._stage)
        return stage if self._fraction is None else f"{stage} {self._fraction:.0%}"

    def wait(self, cancel: threading.Event) -> Backend:
        """The model, once it is loaded.

        Raises:
            QwenchatError: it could not be loaded; told once where the model before it is still there.
            Interrupted: ``cancel`` was set before it was; the load itself goes on.
        """
        while not self._done.wait(_POLL_SECONDS):
            if cancel.is_set():
                raise Interrupted(tr("taken back: the model is still loading"))
        if (failure := self.take_failure()) is not None:
            raise failure
        if self.error is not None:
            raise self.error
        assert self.backend is not None
        return self.backend

    def take_failure(self) -> QwenchatError | None:
        """The failure, if nobody has taken it yet."""
        failure, self._untold = self._untold, None
        return failure

    def _run(self) -> None:
        before, self._after = self._after, None
        if before is not None and before.started:
            before._done.wait()
        try:
            if before is None or before.backend is None:
                self.backend = self._attempt(settle=True)
            else:
                self._replace(before)
        except QwenchatError as error:
            self.error = error
        finally:
            self._done.set()
            self._on_change()

    def _replace(self, before: BackgroundLoad) -> None:
        """Loads the model in place of the one that is there, which stays if that fails."""
        try:
            with suppress(InsufficientMemoryError):
                self.backend = self._attempt(settle=False)
            before._let_go()
            self.backend = self.backend or self._attempt(settle=True)
        except QwenchatError as error:
            self.failure = self._untold = error
            self.name, self._load, self.backend = before.name, before._load, before.backend
            if self.backend is None:
                self.backend = self._attempt(settle=True)

    def _let_go(self) -> None:
        """Frees the model."""
        if self.backend is not None:
            self.backend.close()
        self.backend = None
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _attempt(self, *, settle: bool) -> Backend:
        """The model.

        Raises:
            QwenchatError: it cannot be loaded, whatever was raised.
        """
        try:
            backend = self._load(self._report, self._notice, settle=settle)
        except QwenchatError:
            raise
        except ImportError as broken:
            error: QwenchatError = cannot_import(broken)
            error.__cause__ = broken
        except MemoryError:
            hint = tr("a smaller model may fit")
            error = InsufficientMemoryError("out of memory while loading the model", hint)
        except Exception as unforeseen:  # noqa: BLE001 - the thread's caller is not there to catch it
            reason = f"{type(unforeseen).__name__}: {unforeseen}"
            error = QwenchatError("the model failed to load: {error}", error=reason)
            error.__cause__ = unforeseen
        else:
            return backend
        raise error

    def _report(self, stage: str, fraction: float | None) -> None:
        self._stage, self._fraction = stage, fraction
        self._on_change()
