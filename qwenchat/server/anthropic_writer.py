"""Replies as ``/v1/messages`` writes them: a list of blocks, each begun, filled and ended."""

from __future__ import annotations

import json
from typing import Any

from qwenchat.chat.messages import CallMade, PrefillProgress, TextDelta, ThoughtDelta
from qwenchat.chat.parts import ToolCall
from qwenchat.server import sse
from qwenchat.server.choosing import Choice
from qwenchat.server.jobs import Piece, Told, new_id
from qwenchat.server.refusals import Refused, anthropic_error


class AnthropicWriter:
    """Writes a reply as a message.

    Args:
        model: the name that the client knows it by.
        choice: what the model may call.
    """

    media_type = sse.MEDIA_TYPE
    ping = sse.frame({"type": "ping"}, "ping")

    def __init__(self, model: str, choice: Choice) -> None:
        self._head = {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": model}
        self._choice, self._told = choice, Told()
        self._blocks: list[dict[str, Any]] = []
        self._open = ""
        self._prompt_tokens = 0

    def begin(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return [_frame("message_start", message=message)]

    def push(self, event: Piece) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        if isinstance(event, CallMade) and not self._choice.takes(self._told.calls):
            return []
        self._told.add(event)
        if isinstance(event, PrefillProgress):
            self._prompt_tokens = event.total
        elif isinstance(event, ThoughtDelta):
            return [*self._turn_to("thinking"), self._delta("thinking_delta", thinking=event.thought)]
        elif isinstance(event, TextDelta):
            return [*self._turn_to("text"), self._delta("text_delta", text=event.text)]
        elif isinstance(event, CallMade):
            return self._call(event.call)
        return []

    def finish(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        reason, stop = self._reason()
        delta = {"stop_reason": reason, "stop_sequence": stop}
        ended = _frame("message_delta", delta=delta, usage=self._usage())
        return [*self._close(), ended, _frame("message_stop")]

    def fail(self, refused: Refused) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [sse.frame(anthropic_error(refused), "error")]

    def whole(self) -> dict[str, Any]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        reason, stop = self._reason()
        ended = {"stop_reason": reason, "stop_sequence": stop, "usage": self._usage()}
        return self._head | {"content": self._blocks} | ended

    def _turn_to(self, kind: str) -> list[bytes]:
        """Begins a block of a kind, unless that is open."""
        if self._open == kind:
            return []
        block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
        return [*self._close(), self._begin(kind, block)]

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._open = kind
        self._blocks.append(block)
        return _frame("content_block_start", index=len(self._blocks) - 1, content_block=block)

    def _delta(self, kind: str, **value: str) -> bytes:
        for name, text in value.items():
            if name in self._blocks[-1]:
                self._blocks[-1][name] += text
        return _frame("content_block_delta", index=len(self._blocks) - 1, delta={"type": kind, **value})

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        signed = [self._delta("signature_delta", signature="")] if self._open == "thinking" else []
        self._open = ""
        return [*signed, _frame("content_block_stop", index=len(self._blocks) - 1)]

    def _call(self, call: ToolCall) -> list[bytes]:
        arguments = object_of(call.arguments)
        block = {"type": "tool_use", "id": new_id("toolu_"), "name": call.name, "input": {}}
        frames = [*self._close(), self._begin("tool_use", block)]
        frames.append(self._delta("input_json_delta", partial_json=json.dumps(arguments, ensure_ascii=False)))
        block["input"] = arguments
        return [*frames, *self._close()]

    def _reason(self) -> tuple[str, str | None]:
        end = self._told.end
        if end is not None and end.finish_reason == "length":
            return "max_tokens", None
        if self._told.calls:
            return "tool_use", None
        if end is not None and end.stop:
            return "stop_sequence", end.stop
        return "end_turn", None

    def _usage(self) -> dict[str, int]:
        usage = self._told.usage
        return {
            "input_tokens": usage.prompt_tokens - usage.reused_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.reused_tokens,
            "output_tokens": usage.completion_tokens,
        }


def object_of(arguments: str) -> dict[str, Any]:
    """The arguments of a call as an object; what is none stands in one, as the model wrote it."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _frame(kind: str, **values: Any) -> bytes:
    return sse.frame({"type": kind, **values}, kind)
