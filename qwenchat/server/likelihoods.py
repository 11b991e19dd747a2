"""How likely tokens were, in the forms of OpenAI's protocols, and which of them a text is made of."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

from qwenchat.chat.messages import Likelihood, TokenChosen
from qwenchat.server.fields import Fields
from qwenchat.server.refusals import Refused

MOST_TOP = 20


def read_chat_likelihoods(fields: Fields) -> int | None:
    """How many of the likeliest tokens a chat's request asks for; None where it asks for nothing."""
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, MOST_TOP)
    if top is not None and not wanted:
        raise Refused(400, "top_logprobs goes with logprobs", param="top_logprobs", code="invalid_value")
    return (top or 0) if wanted else None


class Waiting:
    """Tokens that were chosen, and wait for their text: what a stop string cut never has one."""

    def __init__(self) -> None:
        self._tokens: list[TokenChosen] = []
        self.all: list[TokenChosen] = []

    def add(self, token: TokenChosen) -> None:
        """Takes the next token."""
        self._tokens.append(token)

    def take(self) -> list[TokenChosen]:
        """Those whose text comes now."""
        tokens, self._tokens = self._tokens, []
        self.all += tokens
        return tokens


def written(data: bytes) -> str:
    """A token as text; of a part of a character its bytes, as OpenAI's legacy protocol writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def of_chat(tokens: Sequence[TokenChosen]) -> dict[str, Any]:
    """As chat completions write them."""
    content = [
        {**_entry(token.token), "top_logprobs": [_entry(other) for other in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(token: Likelihood) -> dict[str, Any]:
    text = token.written.decode("utf-8", "replace")
    return {"token": text, "logprob": token.logprob, "bytes": list(token.written)}


class Legacy:
    """Tokens of one text as the legacy completions write them, in lists beside one another.

    Args:
        top: how many of the likeliest are told.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._length = 0
        self._lists: dict[str, list[Any]] = {}
        self.take()

    def add_first(self, data: bytes) -> None:
        """Adds a prompt's first token, of which nothing is known."""
        self._add(data, None, None)

    def add(self, token: TokenChosen) -> None:
        """Adds a token."""
        top: dict[str, float] = {}
        for other in (*token.top, token.token):  # the chosen one is there too, as OpenAI has it
            top.setdefault(written(other.written), other.logprob)
        self._add(token.token.written, token.token.logprob, top if self._top else None)

    def take(self) -> dict[str, Any]:
        """What was added since the last time."""
        lists = self._lists
        self._lists = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        return lists

    def _add(self, data: bytes, logprob: float | None, top: dict[str, float] | None) -> None:
        for name, value in zip(self._lists, (written(data), logprob, top, self._length), strict=True):
            self._lists[name].append(value)
        self._length += len(self._decoder.decode(data))
