"""The Python worker: runs code in one namespace; a request is a line of JSON, events likewise.

Runs confined, in whatever interpreter the user names, with ``-I`` and without our package: the standard
library alone, and nothing newer than Python 3.8. A request is ``{"code", "seconds"}``. Events are
``{"type", "text"}``: stdout, stderr, execute_result, display_data, error; a picture has its file's name.
``done`` is the last, with how it ended. What is printed past the begin is kept back, and of that the end is
told.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import json
import linecache
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType, TracebackType
from typing import IO, Any

HEAD, TAIL = 20_000, 10_000
"""Characters of what a run prints that are told: from its begin, and from its end."""
TIMEOUT = "Timeout: Code execution exceeded the time limit."

_PRELUDE = {
    **{name: (name, "") for name in ("math", "re", "json")},
    "np": ("numpy", ""),
    "pd": ("pandas", ""),
    "plt": ("matplotlib.pyplot", ""),
    "sns": ("seaborn", ""),
    **{name: ("sympy", name) for name in ("Eq", "symbols", "solve")},
}
"""What code for Qwen's interpreter finds imported; here when the code first names it, if it is installed."""
_CJK_FONTS = [
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "Source Han Sans SC",
    "SimHei",
    "PingFang SC",
]


class _Timeout(BaseException):
    """The run has taken its time."""


class _Events:
    """Tells the chat what happens, in order."""

    def __init__(self, out: int) -> None:
        self._out = out
        self.printed, self.tail, self.kind = 0, "", "stdout"

    def begin(self) -> None:
        self.printed, self.tail = 0, ""

    def tell(self, kind: str, **values: str) -> None:
        line = json.dumps({"type": kind, **values}).encode() + b"\n"
        view = memoryview(line)
        while view:
            view = view[os.write(self._out, view) :]

    def printing(self, kind: str, text: str) -> None:
        room = max(HEAD - self.printed, 0)
        self.printed += len(text)
        if text[:room]:
            self.tell(kind, text=text[:room])
        if text[room:]:
            self.tail, self.kind = (self.tail + text[room:])[-TAIL:], kind

    def end(self) -> None:
        hidden = self.printed - HEAD - len(self.tail)
        gap = f"\n... {hidden} characters left out ...\n" if hidden > 0 else ""
        if self.tail:
            self.tell(self.kind, text=gap + self.tail)


class _Stream(io.TextIOBase):
    """sys.stdout or sys.stderr of the code."""

    encoding = "utf-8"

    def __init__(self, events: _Events, kind: str) -> None:
        self._events, self._kind, self._line = events, kind, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not " + type(text).__name__)
        self._line += text
        if "\n" in text or len(self._line) > 4096:
            self.flush()
        return len(text)

    def flush(self) -> None:
        text, self._line = self._line, ""
        if text:
            self._events.printing(self._kind, text)


class _Descriptor:
    """What goes past Python to descriptor 1 or 2: from libraries and from programs that the code starts."""

    def __init__(self, number: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the worker lives
        os.dup2(self._file.fileno(), number)

    def take(self) -> str:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(size - HEAD - TAIL, 0))
        data = self._file.read()
        self._file.seek(0)
        self._file.truncate()
        return data.decode("utf-8", "replace")


class Worker:
    """Runs one request after another."""

    def __init__(self, requests: IO[bytes], out: int) -> None:
        self._requests, self._events = requests, _Events(out)
        self._streams = {"stdout": _Stream(self._events, "stdout"), "stderr": _Stream(self._events, "stderr")}
        self._descriptors = {"stdout": _Descriptor(1), "stderr": _Descriptor(2)}
        sys.stdout, sys.stderr = self._streams["stdout"], self._streams["stderr"]
        builtins.input = _refuse_input
        builtins.display = self._display  # type: ignore[attr-defined]
        self._names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        self._runs = 0

    def serve(self) -> None:
        """Answers until nobody asks any more."""
        self._events.tell("started")
        for line in self._requests:
            request = json.loads(line)
            self._events.begin()
            how = self._guarded(request["code"], request["seconds"])
            self._flush()
            self._events.end()
            self._events.tell("done", how=how)

    def _guarded(self, code: str, seconds: float) -> str:
        """Runs code; whatever it raises is told. Returns how it ended."""
        try:
            try:
                signal.signal(signal.SIGALRM, _out_of_time)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.setitimer(signal.ITIMER_REAL, seconds)
                self._run(code)
                self._save_pictures()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except _Timeout:
            self._error(TIMEOUT)
            return "timeout"
        except KeyboardInterrupt as error:
            self._error(self._told(error))
            return "interrupted"
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is told
            self._error(self._told(error))
            return "error"
        return "complete"

    def _run(self, code: str) -> None:
        self._runs += 1
        sys.stdin = io.StringIO()  # the last run may have closed it, as exit() does
        name = f"<cell {self._runs}>"
        linecache.cache[name] = (len(code), None, (code + "\n").splitlines(True), name)
        tree = ast.parse(code, name)
        self._import_what_is_named(tree)
        last, shown = None, tree.body[-1] if tree.body else None
        if isinstance(shown, ast.Expr) and not code.rstrip().endswith(";"):
            tree.body.pop()
            last = ast.Expression(shown.value)
        exec(compile(tree, name, "exec"), self._names)  # noqa: S102 - this is the place, and confined
        value = None
        if last is not None:
            value = eval(compile(last, name, "eval"), self._names)  # noqa: S307 - likewise
        if value is not None:
            self._names["_"] = value
            text = repr(value)
            self._flush()
            self._events.tell("execute_result", text=_cut(text))

    def _import_what_is_named(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in _PRELUDE and node.id not in self._names:
                module, attribute = _PRELUDE[node.id]
                try:
                    found = importlib.import_module(module)
                except ImportError:
                    continue
                self._names[node.id] = getattr(found, attribute) if attribute else found

    def _display(self, *values: object) -> None:
        for value in values:
            text = _cut(repr(value))
            self._flush()
            self._events.tell("display_data", text=text)

    def _save_pictures(self) -> None:
        """Saves the figures that are open, and closes them."""
        plt = sys.modules.get("matplotlib.pyplot")
        if plt is None:
            return
        fonts = plt.rcParams["font.sans-serif"]
        if fonts[:1] == ["DejaVu Sans"]:
            from matplotlib import font_manager

            known = {font.name for font in font_manager.fontManager.ttflist}
            plt.rcParams["font.sans-serif"] = [
                *fonts[:1],
                *(font for font in _CJK_FONTS if font in known),
                *fonts[1:],
            ]
        for figure in plt.get_fignums():
            path = _new_name()
            plt.figure(figure).savefig(path)
            self._flush()
            self._events.tell("picture", text=path)
        plt.close("all")

    def _told(self, error: BaseException) -> str:
        """A traceback, without our own frames."""
        trace: TracebackType | None = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(error), error, trace)).rstrip("\n")

    def _error(self, text: str) -> None:
        self._flush()
        self._events.tell("error", text=_cut(text))

    def _flush(self) -> None:
        """Tells what was printed and not told yet, before what comes next."""
        for kind, stream in self._streams.items():
            stream.flush()
            text = self._descriptors[kind].take()
            if text:
                self._events.printing(kind, text)


def _cut(text: str) -> str:
    if len(text) <= HEAD + TAIL:
        return text
    return f"{text[:HEAD]}\n... {len(text) - HEAD - TAIL} characters left out ...\n{text[-TAIL:]}"


def _new_name() -> str:
    number = 1
    while os.path.lexists(f"fig-{number:03}.png"):
        number += 1
    return f"fig-{number:03}.png"


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise _Timeout


def _refuse_input(prompt: object = "") -> str:
    raise EOFError("input() is not available here: put the values into the code")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["MPLBACKEND"] = "Agg"
    import warnings

    warnings.filterwarnings("ignore", message=".*(non-interactive|missing from (the )?(current )?font).*")
    requests, out = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    worker = Worker(requests, out)
    worker.serve()


if __name__ == "__main__":
    main()
