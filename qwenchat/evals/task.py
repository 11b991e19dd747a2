"""What an evaluation is made of: items, what became of each, the figures that they add up to. Values.

A task owns its prompts, how an answer is found in a reply, and its averages. Who asks the model, who keeps
what was answered and who shows it, it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, ToolCall
from qwenchat.tools.forms import Definition

RIGHT = "right"
"""The score of what is right or wrong."""
WRONG: Mapping[str, float] = {RIGHT: 0.0}
"""The scores of what is wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is asked.

    Attributes:
        id: by which it is known among the data.
        group: what it belongs to, as the subject of an exam.
        values: what the task needs of it, as plain JSON.
    """

    id: str
    group: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item.

    Attributes:
        prompt, reply: what was asked and answered; of several steps, all of it.
        extracted: the answer that was found in the reply; None if none was.
        scores: 0 to 1 each, by name; of most tasks :data:`RIGHT` alone.
    """

    prompt: str
    reply: str
    extracted: Any
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Record:
    """An item's outcome as it is kept.

    Attributes:
        id, group: the item's.
        scores: as of :class:`Outcome`.
        problem: why there is no reply; empty if there is one.
        seconds: that it took.
        prompt_tokens, reused_tokens, completion_tokens: of all its replies.
    """

    id: str
    group: str
    scores: Mapping[str, float]
    problem: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the report.

    Attributes:
        key: by which the card's own is found, as "mmlu" or "mmlu/stem".
        name: for people.
        value: 0 to 1.
        count: of what it is an average of.
        low, high: the interval of 95 %.
        percent: whether it is told in percent.
        graded: whether it is the mean of degrees, and not of right and wrong.
    """

    key: str
    name: str
    value: float
    count: int
    low: float
    high: float
    percent: bool = True
    graded: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """The items of a task, in the order in which they are published.

    Attributes:
        items: them.
        origin: where they come from, for people.
        revision: of the source, if it has any.
        published: how many there are in the published set; 0 if that is not known.
    """

    items: Sequence[Item]
    origin: str
    revision: str = ""
    published: int = 0
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        plain = [[item.id, item.group, dict(item.values)] for item in self.items]
        text = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to one prompt.

    Attributes:
        text: it.
        calls: the tools that it called, where it was given any.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()


class Asker(Protocol):
    """Asks the model, greedily."""

    def ask(self, messages: Sequence[Message], **changes: Any) -> Reply:
        """The reply to messages.

        Args:
            changes: of the options, for this reply.
        """

    def ask_with(
        self, tools: Sequence[Definition], messages: Sequence[Message], *, constrained: bool
    ) -> Reply:
        """The reply to messages of a model that may call tools, in its own form.

        Args:
            constrained: whether calls are held to the tools' schemas, where the model can be.
        """

    def go_on(self, messages: Sequence[Message], begun: str, **changes: Any) -> Reply:
        """What the model says behind the beginning of its own reply; ``begun`` is not in it."""

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether messages leave room for a reply of the protocol's length."""


Notice = Callable[[str], None]
Stage = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a task is to come from.

    Attributes:
        path: what the user named; None to fetch it.
        stage: told how far fetching is.
    """

    path: Path | None = None
    stage: Stage = lambda stage, fraction: None


class Task(Protocol):
    """A benchmark.

    Attributes:
        name: as on the command line.
        title: for people.
        needs: packages beside ours that it cannot do without, as they are imported.
        confines: whether it runs code, and so needs the sandbox.
        options: what of it can be chosen, as it was: part of what makes two runs the same.
        penalty: the repetition penalty of its protocol; None for the checkpoint's own.
        unanswered: the scores of an item whose prompt does not fit into the context.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    confines: bool
    options: Mapping[str, Any]
    penalty: float | None
    unanswered: Mapping[str, float]

    def load(self, source: Source) -> Dataset:
        """The items.

        Raises:
            UsageError: what the user named is not of the published form.
            DownloadError: it cannot be fetched.
        """

    def run(self, item: Item, model: Asker) -> Outcome:
        """Asks and judges."""

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """What the records add up to; at least one record."""


def user(text: str) -> list[Message]:
    """A chat that begins with what the user says."""
    return [Message.of_text(Role.USER, text)]
