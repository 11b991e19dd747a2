"""Replies as ``/v1/responses`` writes them: a list of items, each begun, filled and done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qwenchat.chat.messages import CallMade, ReplyEnd, TextDelta, ThoughtDelta, Usage
from qwenchat.chat.parts import ToolCall
from qwenchat.server import sse
from qwenchat.server.choosing import Choice
from qwenchat.server.jobs import Piece, Told, new_id, now
from qwenchat.server.refusals import Refused


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request stands in its response again."""

    model: str
    instructions: str | None = None
    tools: list[Any] = field(default_factory=list)
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    format: Any = None
    effort: str | None = None
    metadata: Any = None


class ResponseWriter:
    """Writes a reply as a response.

    Args:
        asked: what of the request stands in it again.
        choice: what the model may call.
    """

    media_type, ping = sse.MEDIA_TYPE, sse.PING

    def __init__(self, asked: Asked, choice: Choice) -> None:
        self._asked, self._choice = asked, choice
        self._id, self._created = new_id("resp_"), now()
        self._told = Told()
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._sequence = 0

    def begin(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return []

    def push(self, event: Piece) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        if isinstance(event, CallMade) and not self._choice.takes(self._told.calls):
            return []
        begun = self._begun() if self._sequence == 0 else []
        self._told.add(event)
        if isinstance(event, ThoughtDelta):
            return [*begun, *self._turn_to("reasoning"), self._delta("reasoning_text", event.thought)]
        if isinstance(event, TextDelta):
            return [*begun, *self._turn_to("message"), self._delta("output_text", event.text)]
        if isinstance(event, CallMade):
            return [*begun, *self._close(), *self._call(event.call)]
        if isinstance(event, ReplyEnd):
            return [*begun, *self._close()]
        return begun

    def finish(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        kind = "response.incomplete" if self._is_cut else "response.completed"
        return [*self._close(), self._frame(kind, response=self.whole())]

    def fail(self, refused: Refused) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        error = {"code": refused.code or "server_error", "message": refused.message}
        response = self._response("failed") | {"error": error}
        return [self._frame("response.failed", response=response)]

    def whole(self) -> dict[str, Any]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return self._response("incomplete" if self._is_cut else "completed")

    @property
    def _is_cut(self) -> bool:
        return self._told.end is not None and self._told.end.finish_reason == "length"

    def _begun(self) -> list[bytes]:
        response = self._response("in_progress")
        kinds = ("response.created", "response.in_progress")
        return [self._frame(kind, response=response) for kind in kinds]

    def _turn_to(self, kind: str) -> list[bytes]:
        """Begins an item of a kind, unless that is open."""
        if self._open is not None and self._open["type"] == kind:
            return []
        frames = self._close()
        item: dict[str, Any]
        if kind == "message":
            item = {
                "id": new_id("msg_"),
                "type": kind,
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
        else:
            item = {"id": new_id("rs_"), "type": kind, "status": "in_progress", "summary": [], "content": []}
        frames.append(self._added(item))
        part = _part(kind, "")
        item["content"].append(part)
        self._open = item
        if kind == "message":
            frames.append(self._on_part("response.content_part.added", part=part))
        return frames

    def _delta(self, kind: str, text: str) -> bytes:
        assert self._open is not None
        self._open["content"][0]["text"] += text
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return self._on_part(f"response.{kind}.delta", delta=text, **more)

    def _close(self) -> list[bytes]:
        """Ends the item that is open."""
        item = self._open
        if item is None:
            return []
        text, frames = item["content"][0]["text"], []
        if item["type"] == "message":
            frames.append(self._on_part("response.output_text.done", text=text, logprobs=[]))
            frames.append(self._on_part("response.content_part.done", part=item["content"][0]))
        else:
            frames.append(self._on_part("response.reasoning_text.done", text=text))
        self._open = None
        return [*frames, self._done(item)]

    def _call(self, call: ToolCall) -> list[bytes]:
        arguments = call.arguments or "{}"
        item = {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": new_id("call_"),
            "name": call.name,
            "arguments": "",
        }
        added = self._added(item)
        place = {"item_id": item["id"], "output_index": len(self._items) - 1}
        frames = [
            added,
            self._frame("response.function_call_arguments.delta", **place, delta=arguments),
            self._frame(
                "response.function_call_arguments.done", **place, name=call.name, arguments=arguments
            ),
        ]
        item["arguments"] = arguments
        return [*frames, self._done(item)]

    def _added(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        return self._frame("response.output_item.added", output_index=len(self._items) - 1, item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        item["status"] = "incomplete" if self._is_cut else "completed"
        return self._frame("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _on_part(self, kind: str, **values: Any) -> bytes:
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}
        return self._frame(kind, **place, **values)

    def _frame(self, kind: str, **values: Any) -> bytes:
        frame = sse.frame({"type": kind, "sequence_number": self._sequence, **values}, kind)
        self._sequence += 1
        return frame

    def _response(self, status: str) -> dict[str, Any]:
        asked, usage = self._asked, self._told.usage
        is_over = status in ("completed", "incomplete")
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": asked.model,
            "output": self._items if is_over else [],
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": asked.effort, "summary": None},
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": asked.format},
            "tool_choice": asked.tool_choice,
            "tools": asked.tools,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": _usage(usage, self._told.thought_tokens) if is_over else None,
            "user": None,
            "metadata": asked.metadata or {},
        }


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "message":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "reasoning_text", "text": text}


def _usage(usage: Usage, thought: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.reused_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
