"""The local door: who comes in, that nothing is lost on the way, and what becomes of who goes."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwenchat.backends.door import client, places, wire
from qwenchat.backends.door.client import DoorBackend, find
from qwenchat.backends.door.wire import Broken, Lines
from qwenchat.chat.messages import (
    CallMade,
    Event,
    GenerationOptions,
    Likelihood,
    Message,
    PrefillProgress,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    Timings,
    TokenChosen,
    Usage,
)
from qwenchat.chat.parts import AttachedFile, Role, Text, Thought, ToolCall, ToolResult
from qwenchat.errors import (
    BusyError,
    ContextLengthError,
    Names,
    OutputClosed,
    Phrase,
    QwenchatError,
    UsageError,
)
from qwenchat.i18n import language
from qwenchat.paths import runtime_dir
from qwenchat.server.background import end_when_idle
from qwenchat.server.door import Door
from tests.fakes import FakeBackend

pytestmark = pytest.mark.skipif(not places.supported(), reason="the system has no such sockets")

WAIT = 30.0
"""Seconds; only a test that fails waits so long."""
WANTED = {"model": "demo", "device": "auto", "context": None}
ASKED = [
    Message(Role.SYSTEM, (Text("Be \ud800 brief."),)),
    Message(Role.USER, (Text('say "\n"\u2028 你好'), AttachedFile("a.txt", "x\n"))),
    Message(Role.ASSISTANT, (Thought("hm", (1, 2)), Text("I", (3,)), ToolCall("f", "{}", "1"))),
    Message(Role.TOOL, (ToolResult("1", "f", "no", failed=True),)),
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"required": ["a"], "x": [[], {}]}}}
OPTIONS = GenerationOptions(
    temperature=0.5,
    seed=2**62,
    stop=("a", "\n"),
    think=True,
    grammar="start: /a/",
    tools=(TOOL,),
    logit_bias=((7, 1.5),),
    likelihoods=1,
)
EVENTS = [
    PrefillProgress(3, 40),
    ThoughtDelta("so \ud800"),
    TextDelta("你"),
    TokenChosen(
        Likelihood(7, b"\xe4\xbd", -0.5), (Likelihood(7, b"\xe4\xbd", -0.5), Likelihood(8, b"", -9.0))
    ),
    CallMade(ToolCall("f", '{"a": 1}', "2")),
    ReplyEnd("stop", Usage(9, 3, 2), Timings(0.1, 0.2, 0.3), 7, (1, 2), None, 3, 2, True, "\n"),
]


class Listener(FakeBackend):
    """Notes what it is asked, plays its events, and then waits for a cancel if it is to."""

    def __init__(self, *events: Event | BaseException, waits: bool = False) -> None:
        super().__init__(*events)
        self.asked: list[Any] = []
        self.begun, self.cancelled, self._waits = threading.Event(), threading.Event(), waits

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        self.asked = [list(messages), options]
        yield from super().stream(messages, options, cancel)
        self.begun.set()
        if self._waits and cancel is not None:
            assert cancel.wait(WAIT)
            self.cancelled.set()
            yield ReplyEnd("cancelled", Usage(1, 0, 0), Timings(0, 0, 0))


@pytest.fixture
def opened() -> Iterator[Callable[..., Door]]:
    with contextlib.ExitStack() as stack:
        yield lambda model, wanted=WANTED, **more: stack.enter_context(Door(model, wanted, **more))


_ASKING: list[DoorBackend] = []


def asking(wanted: dict[str, Any] = WANTED) -> DoorBackend:
    found = find(wanted)
    assert found is not None
    _ASKING.append(found)
    return found


@pytest.fixture(autouse=True)
def leaving() -> Iterator[None]:
    yield
    while _ASKING:
        _ASKING.pop().close()


def until(reached: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT / 0.01)):
        if reached():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come to that")


# --- what goes through ---------------------------------------------------------------------------


def test_a_chat_goes_through_and_nothing_of_it_is_lost(opened: Callable[..., Door]) -> None:
    model = Listener(*EVENTS)
    opened(model)
    backend = asking()
    assert list(backend.stream(ASKED, OPTIONS)) == EVENTS
    assert model.asked == [ASKED, OPTIONS]
    plain = ("name", "description", "context", "system", "call_form", "thinks", "constrains", "continues")
    assert [getattr(backend, name) for name in plain] == [getattr(model, name) for name in plain]
    assert backend.count_tokens(ASKED[:2]) == model.count_tokens(ASKED[:2])
    assert backend.effective(OPTIONS) == model.effective(OPTIONS)
    backend.close()


@pytest.mark.parametrize(
    "error",
    [
        ContextLengthError("the prompt has {length} tokens, the context holds {most}", length=900, most=512),
        UsageError(Phrase("unknown option {names}", names=Names(["a", "b"])), "choose one"),
        BusyError("the model is closed", in_chat="{model}", model=Phrase("{count} s", count=3)),
        OutputClosed(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_raised_and_can_be_translated(
    opened: Callable[..., Door], error: QwenchatError
) -> None:
    opened(Listener(TextDelta("a"), error))
    stream = asking().stream(ASKED, OPTIONS)
    assert next(stream) == TextDelta("a")
    with pytest.raises(type(error)) as found:
        next(stream)
    assert (str(found.value), found.value.exit_code) == (str(error), error.exit_code)
    assert found.value.message.template == error.message.template
    try:
        language.use("zh")
        assert language.told(found.value) == language.told(error)
        assert language.told(found.value, in_chat=True) == language.told(error, in_chat=True)
    finally:
        language.use("en")


def test_a_mistake_of_the_models_is_told_and_the_next_is_answered(opened: Callable[..., Door]) -> None:
    model = Listener(*EVENTS)
    opened(model)
    backend = asking()
    model._events = (ValueError("a mistake"),)
    with pytest.raises(QwenchatError, match="ValueError: a mistake"):
        list(backend.stream(ASKED, OPTIONS))
    model._events = tuple(EVENTS)
    assert list(backend.stream(ASKED, OPTIONS)) == EVENTS


def test_what_is_asked_ahead_is_answered_once(opened: Callable[..., Door]) -> None:
    model = Listener(*EVENTS)
    opened(model)
    backend = asking()
    backend.ask_ahead(ASKED, OPTIONS)
    assert model.begun.wait(WAIT)
    model.asked.clear()
    assert list(backend.stream(ASKED, OPTIONS)) == EVENTS
    assert model.asked == []  # nobody asked again
    assert list(backend.stream(ASKED, OPTIONS)) == EVENTS
    assert model.asked == [ASKED, OPTIONS]


def test_what_is_asked_ahead_and_then_otherwise_is_cancelled(opened: Callable[..., Door]) -> None:
    model = Listener(*EVENTS, waits=True)
    opened(model)
    backend = asking()
    backend.ask_ahead(ASKED, OPTIONS)
    assert model.begun.wait(WAIT)
    stream = backend.stream(ASKED[:2], OPTIONS)
    assert next(stream) == EVENTS[0]
    assert model.cancelled.wait(WAIT)
    assert model.asked == [ASKED[:2], OPTIONS]
    stream.close()


# --- who goes away -------------------------------------------------------------------------------


def test_a_cancel_is_heard_and_the_end_still_comes(opened: Callable[..., Door]) -> None:
    model = Listener(TextDelta("a"), waits=True)
    opened(model)
    cancel = threading.Event()
    stream = asking().stream(ASKED, OPTIONS, cancel)
    assert next(stream) == TextDelta("a")
    cancel.set()
    (end,) = stream
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"


def test_who_goes_cancels_also_before_anything_came(opened: Callable[..., Door]) -> None:
    model = Listener(waits=True)
    opened(model)
    connection = places.connect(places.doors()[0], WAIT)
    assert connection is not None
    asked = {"messages": wire.packed(tuple(ASKED)), "options": wire.packed(OPTIONS)}
    Lines(connection).send(client._hello("stream", WANTED, **asked))
    assert model.begun.wait(WAIT)
    connection.close()
    assert model.cancelled.wait(WAIT)


def test_a_server_that_ends_meanwhile_is_told_of() -> None:
    door = Door(Listener(TextDelta("a"), waits=True), WANTED)
    with door:
        backend = asking()
        stream = backend.stream(ASKED, OPTIONS)
        assert next(stream) == TextDelta("a")
    with pytest.raises(QwenchatError, match="the server that had the model is gone"):
        next(stream)
    with pytest.raises(QwenchatError, match="the server that had the model is gone"):
        backend.count_tokens(ASKED)
    assert find(WANTED) is None


def test_replies_come_to_their_end_when_the_door_closes() -> None:
    model = Listener(*EVENTS)
    with Door(model, WANTED, grace=lambda: WAIT) as door:
        stream = asking().stream(ASKED, OPTIONS)
        first = next(stream)
        ending = threading.Thread(target=door.__exit__)
        ending.start()
        assert [first, *stream] == EVENTS
        ending.join(WAIT)
    assert places.doors() == []


# --- who comes in --------------------------------------------------------------------------------


def test_only_this_user_can_reach_it(opened: Callable[..., Door]) -> None:
    door = opened(Listener())
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(door.path.parent.stat().st_mode) == 0o700


def test_another_user_is_neither_let_in_nor_asked(opened: Callable[..., Door], monkeypatch: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert places.is_own_peer(ours)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert not places.is_own_peer(ours)
    monkeypatch.undo()
    opened(Listener(*EVENTS))
    monkeypatch.setattr(places, "is_own_peer", lambda connection: False)
    assert find(WANTED) is None


@pytest.mark.parametrize("how", ["open to others", "a link"])
def test_a_folder_that_is_not_ones_own_is_not_used(how: str, tmp_path: Path) -> None:
    folder = runtime_dir()
    if how == "a link":
        folder.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    else:
        folder.mkdir(parents=True, mode=0o700)
        folder.chmod(0o755)
    with pytest.raises(QwenchatError):
        Door(Listener(), WANTED).__enter__()
    assert places.doors() == []
    assert find(WANTED) is None


@pytest.mark.parametrize("changed", [{"model": "other"}, {"context": 100}, {"device": "cuda"}, {"more": 1}])
def test_another_model_is_not_answered_with(opened: Callable[..., Door], changed: dict[str, Any]) -> None:
    opened(Listener(*EVENTS))
    assert find(WANTED | changed) is None
    asking()


def test_another_version_is_not_used_and_can_be_ended_all_the_same(
    opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    opened(Listener(*EVENTS), on_stop=ended.set)
    monkeypatch.setattr(client, "__version__", "0.0.1")
    assert find(WANTED) is None
    (about,) = client.about()
    assert (about["model"], about["pid"]) == ("fake", os.getpid())
    assert client.told(places.doors()[0], "stop") is not None
    assert ended.wait(WAIT)


def test_a_model_whose_files_have_changed_is_loaded_anew(opened: Callable[..., Door]) -> None:
    current = [True]
    opened(Listener(*EVENTS), is_current=lambda: current[0])
    asking()
    current[0] = False
    assert find(WANTED) is None


def test_one_among_several_is_found(opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate(("a", "b", "c")):
        monkeypatch.setattr(os, "getpid", lambda n=n: 100 + n)
        opened(Listener(TextDelta(name), *EVENTS), WANTED | {"model": name})
    assert next(asking(WANTED | {"model": "b"}).stream(ASKED, OPTIONS)) == TextDelta("b")
    assert len(client.about()) == 3


def test_sockets_of_servers_that_are_gone_are_swept(opened: Callable[..., Door]) -> None:
    door = opened(Listener(*EVENTS))
    stale = door.path.with_name("1.sock")
    with socket.socket(socket.AF_UNIX) as left, places._address(stale) as address:
        left.bind(address)
    stale.with_name("2.sock").write_text("no socket")
    assert list(asking().stream(ASKED, OPTIONS)) == EVENTS
    assert not stale.exists()


def test_a_path_that_is_too_long_for_a_socket_is_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWENCHAT_HOME", str(tmp_path / ("long" * 40)))
    if not Path("/proc/self/fd").exists():
        with pytest.raises(QwenchatError, match="too long"):
            Door(Listener(), WANTED).__enter__()
        return
    with Door(Listener(*EVENTS), WANTED):
        assert list(asking().stream(ASKED, OPTIONS)) == EVENTS


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"no json\n", b"[1]\n", b'{"do": "x"}\n', b'{"do": "meet"}\n', b"\xff\xfe\n",
        b"[" * 10000 + b"\n", b'{"do": "stream"',
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_not_answered_and_the_next_is(
    opened: Callable[..., Door], data: bytes
) -> None:
    opened(Listener(*EVENTS))
    connection = places.connect(places.doors()[0], WAIT)
    assert connection is not None
    with connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert b'"model"' not in connection.recv(1000)
    assert list(asking().stream(ASKED, OPTIONS)) == EVENTS


@pytest.mark.parametrize(
    "value",
    [
        {"is": "Popen", "args": []}, {"is": "Message", "role": "boss", "parts": []}, {"text": "a"},
        {"is": "TextDelta", "other": 1}, {"is": []},
    ],
)  # fmt: skip
def test_no_other_values_can_be_made(value: Any) -> None:
    with pytest.raises(Broken):
        wire.unpacked(value)


# --- what it costs -------------------------------------------------------------------------------


def test_asking_loads_nothing_heavy() -> None:
    program = """
import sys
import qwenchat.backends.door.client, qwenchat.backends.door.wanted
heavy = {"torch", "numpy", "httpx2", "starlette", "asyncio", "rich", "prompt_toolkit", "typer", "safetensors"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_server_that_nobody_uses_ends_and_one_that_is_used_does_not(opened: Callable[..., Door]) -> None:
    door = opened(Listener(*EVENTS))
    backend = asking()
    ended = threading.Event()
    end_when_idle(0.05, lambda: door.unused_seconds, ended.set)
    assert not ended.wait(0.3)  # somebody is there, though he says nothing
    backend.close()
    assert ended.wait(WAIT)
