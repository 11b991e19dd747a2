"""Tokens of a prompt on a server: counted by it where it can, else estimated.

An estimate is set right by what the server says of each reply. A server that once fails to count is not asked
again: the toolbar, which wants to know, is drawn while the user types.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qwenchat.backends.remote.answer import count_of
from qwenchat.backends.remote.probe import Ask, Server

Messages = Sequence[Mapping[str, Any]]
Count = Callable[[Messages], int | None]
"""From messages to the tokens of their prompt; None where the server does not say."""

_AROUND = 4
"""Tokens around a message, of the template's."""
_REMEMBERED = 512
_LEAST_SCALE, _MOST_SCALE = 0.4, 2.5


class Counter:
    """Counts the tokens of prompts on one server.

    Args:
        server: which it is.
        base: where it has what is not OpenAI's.
        ask: asks it.

    Attributes:
        is_exact: whether the server counts, and not an estimate does.
    """

    def __init__(self, server: Server, base: str, ask: Ask) -> None:
        self._scale = 1.0
        self._known: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        probe = [{"role": "user", "content": "hi"}]
        ways = [_WAYS[server.kind]] if server.kind in _WAYS else [_of_messages, _of_template]
        counts = (way(server, base, ask) for way in ways)
        self._count = next((count for count in counts if count(probe) is not None), None)

    @property
    def is_exact(self) -> bool:
        return self._count is not None

    def count(self, messages: Messages) -> int:
        """Tokens of the prompt that asks for a reply to messages."""
        key = json.dumps(messages)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        tokens = self._count(messages) if self._count is not None else None
        if tokens is None:
            self._count = None
            return round(_estimate(messages) * self._scale)
        with self._lock:
            self._known[key] = tokens
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return tokens

    def learn(self, messages: Messages, tokens: int) -> None:
        """Takes to heart what the server said of a prompt."""
        if tokens > 0:
            self._scale = min(max(tokens / _estimate(messages), _LEAST_SCALE), _MOST_SCALE)

    def text(self, text: str) -> int:
        """Tokens of a text, estimated."""
        return round(_of_text(text) * self._scale)


def _estimate(messages: Messages) -> float:
    return 3 + sum(_AROUND + sum(map(_of_text, _texts(message))) for message in messages)


def _texts(message: Mapping[str, Any]) -> list[str]:
    return [value if isinstance(value, str) else json.dumps(value) for value in message.values() if value]


def _of_text(text: str) -> float:
    """About as many tokens as are made today: one of four letters, or of one and a half Chinese signs."""
    ascii_signs = sum(character < "\x80" for character in text)
    return ascii_signs / 4 + (len(text) - ascii_signs) / 1.5


def _of_messages(server: Server, base: str, ask: Ask) -> Count:
    """As vLLM counts: it takes messages, and renders them as for a reply."""

    def count(messages: Messages) -> int | None:
        goes_on = messages[-1]["role"] == "assistant"
        going_on = {"add_generation_prompt": False, "continue_final_message": True} if goes_on else {}
        told = ask("POST", f"{base}/tokenize", {"model": server.model, "messages": messages, **going_on})
        return _told(told)

    return count


def _of_template(server: Server, base: str, ask: Ask) -> Count:
    """As llama-server counts: it renders messages, and takes the text apart."""

    def count(messages: Messages) -> int | None:
        prompt = (ask("POST", f"{base}/apply-template", {"messages": messages}) or {}).get("prompt")
        if not isinstance(prompt, str):
            return None
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return _told(ask("POST", f"{base}/tokenize", asked))

    return count


def _told(answer: Mapping[str, Any] | None) -> int | None:
    if answer is None:
        return None
    tokens = answer.get("tokens")
    return len(tokens) if isinstance(tokens, list) else count_of(answer, "count")


_WAYS: Mapping[str, Callable[[Server, str, Ask], Count]] = {
    "vllm": _of_messages,
    "qwenchat": _of_messages,
    "llama-server": _of_template,
}
