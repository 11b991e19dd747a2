"""What errors say, on the command line and in the chat."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwenchat
from qwenchat.cli.flags import _FLAGS
from qwenchat.errors import InsufficientMemoryError, QwenchatError, UsageError
from qwenchat.i18n.language import told

PACKAGE = Path(qwenchat.__file__).parent
IN_THE_CHAT = ("backends", "engine", "chat", "terminal", "turn.py", "session_listing.py", "models/catalog.py")
FLAGS = "|".join(name.replace("_", "-") for name in _FLAGS)
FLAG = re.compile(rf"--({FLAGS})\b|qwenchat (ask|models|sessions) ")


def hints() -> Iterator[tuple[str, str, bool]]:
    """Of each error that can be met in the chat its place, its hint, and whether it has one for the chat."""
    for part in IN_THE_CHAT:
        path = PACKAGE / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args[1:]:
                    in_chat = any(keyword.arg == "in_chat" for keyword in node.keywords)
                    yield f"{file.name}:{node.lineno}", ast.unparse(node.args[1]), in_chat


def test_a_hint_with_a_flag_or_a_command_of_the_shell_has_another_for_the_chat() -> None:
    found = [(place, in_chat) for place, hint, in_chat in hints() if FLAG.search(hint)]
    assert len(found) > 5
    assert [place for place, in_chat in found if not in_chat] == []


def no_device() -> None:
    from qwenchat.backends.devices import pick_device

    pick_device("cuda:99")


@pytest.mark.parametrize("index", ["9" * 5000, "٣", "-1", "1.5", "x"])
def test_a_number_that_no_device_has_is_told(index: str) -> None:
    from qwenchat.backends.devices import pick_device

    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        pick_device(f"cuda:{index}")


def too_long_a_context() -> None:
    from qwenchat.backends.request import pick_context

    pick_context(9999, 512, 512)


def not_here() -> None:
    from qwenchat.models import catalog

    raise catalog.not_found("Qwen/Qwen-14B-Chat")


def too_little_memory() -> None:
    from qwenchat.backends.load import _drop_frames

    @_drop_frames
    def load() -> None:
        raise InsufficientMemoryError("it needs 9 GiB", "--context 488 would fit", in_chat="start anew")

    load()


@pytest.mark.parametrize(
    ("fails", "in_chat"),
    [
        (no_device, "start qwenchat with --device cpu"),
        (too_long_a_context, "this model takes 1 to 512 tokens: start qwenchat with as many"),
        (not_here, "download it outside the chat: qwenchat models pull Qwen/Qwen-14B-Chat"),
        (too_little_memory, "start anew"),
    ],
)
def test_what_keeps_a_model_from_loading_is_told_in_the_chat_s_terms(fails: object, in_chat: str) -> None:
    assert callable(fails)
    with pytest.raises(QwenchatError) as caught:
        fails()
    assert told(caught.value, in_chat=True).endswith(f"; {in_chat}")
    assert str(caught.value) != told(caught.value, in_chat=True)
