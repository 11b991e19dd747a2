"""One model in place of another: the one that works stays until the other does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from qwenchat.chat.backend import Backend
from qwenchat.errors import CheckpointError, InsufficientMemoryError, ModelError, QwenchatError
from qwenchat.models.progress import Progress
from qwenchat.terminal.background_load import BackgroundLoad, Notice
from qwenchat.terminal.loop import Loop
from tests.fakes import Echo
from tests.terminal.chat_program import make_chat


class Memory:
    """Room for some models at once, and a log of what is loaded and let go."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.log: list[str] = []

    def load(self, name: str, after: BackgroundLoad | None = None, fails: str = "") -> BackgroundLoad:
        """Begins to load a model, which fails always, or only when there is room for it (alone)."""
        memory = self

        class Model(Echo):
            def __init__(self) -> None:
                super().__init__(name)
                memory.room -= 1
                memory.log.append(f"+{name}")

            def close(self) -> None:
                memory.room += 1
                memory.log.append(f"-{name}")

        def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
            if fails == "always":
                raise CheckpointError(f"{name} is damaged")
            if memory.room < 1:
                raise InsufficientMemoryError(f"no room for {name}")
            if fails == "late":
                raise CheckpointError(f"{name} is damaged")
            return Model()

        begun = BackgroundLoad(name, load, after=after)
        begun.start()
        return begun


def outcome(load: BackgroundLoad) -> str:
    """The name of the model that is there, and why it is not the one that was asked for."""
    try:
        load.wait(threading.Event())
    except QwenchatError as error:
        return f"{load.backend.name if load.backend else None}: {error}"
    assert load.backend is not None
    return load.backend.name


def test_where_memory_holds_both_the_old_goes_when_the_new_is_there() -> None:
    memory = Memory(room=2)
    first = memory.load("a")
    assert outcome(memory.load("b", after=first)) == "b"
    assert memory.log == ["+a", "+b", "-a"]


def test_a_model_that_cannot_be_loaded_costs_nothing() -> None:
    memory = Memory(room=2)
    second = memory.load("b", after=memory.load("a"), fails="always")
    assert outcome(second) == "a: b is damaged"
    assert memory.log == ["+a"]
    assert second.name == "a"
    assert outcome(second) == "a"  # told once
    assert outcome(memory.load("c", after=second)) == "c"
    assert memory.log == ["+a", "+c", "-a"]


def test_where_memory_holds_one_the_old_makes_room() -> None:
    memory = Memory(room=1)
    assert outcome(memory.load("b", after=memory.load("a"))) == "b"
    assert memory.log == ["+a", "-a", "+b"]


def test_where_memory_holds_one_the_old_is_loaded_again_if_the_new_fails() -> None:
    memory = Memory(room=1)
    second = memory.load("b", after=memory.load("a"), fails="late")
    assert outcome(second) == "a: b is damaged"
    assert memory.log == ["+a", "-a", "+a"]
    assert second.name == "a"


def test_beside_another_a_model_does_not_settle_for_less() -> None:
    asked = []

    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        asked.append(settle)
        if not settle:
            raise InsufficientMemoryError("no room for all of the context")
        return Echo()

    first = Memory(room=1).load("a")
    second = BackgroundLoad("b", load, after=first)
    second.start()
    second.wait(threading.Event())
    assert asked == [False, True]


def test_memory_that_runs_out_while_loading_is_no_room() -> None:
    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        raise MemoryError

    begun = BackgroundLoad("a", load)
    begun.start()
    with pytest.raises(ModelError, match="out of memory"):
        begun.wait(threading.Event())


def test_a_question_to_a_model_that_failed_waits_for_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = make_chat(tmp_path)
    Loop(chat).take("one")
    Loop(chat).take("/model damaged")
    Loop(chat).take("two")
    shown = capsys.readouterr().err
    assert "there is no model called damaged" in shown
    assert "keeping first; /retry asks it" in shown
    assert chat.conversation.path()[-1].text == "two"
    Loop(chat).take("/retry")
    assert "You said: two" in capsys.readouterr().out
    Loop(chat).take("/model")
    assert "echo" in capsys.readouterr().err
