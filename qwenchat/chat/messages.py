"""Messages, sampling options, and the events that a model answers with.

Pure values: they know nothing of disks, terminals or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from qwenchat.chat import openai_shape
from qwenchat.chat.parts import PARTS, AttachedFile, Part, Role, Text, Thought, ToolCall
from qwenchat.errors import PromptError, UsageError

FinishReason = Literal["stop", "length", "cancelled"]
"""Why a reply ended: the model or a stop string ended it, the limit was reached, or it was cancelled."""


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said: one or more parts.

    Attributes:
        role, parts: who said what. Which parts a role may have: :data:`~qwenchat.chat.parts.PARTS`.

    Raises:
        PromptError: the parts are none that the role may have, or it is no :class:`Role`.
    """

    role: Role
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.role, Role):
            raise PromptError("a message's role is {kind}, expected a Role", kind=type(self.role).__name__)
        if not isinstance(self.parts, tuple):
            raise PromptError(
                "a message's parts are {kind}, expected a tuple",
                "Message.of_text makes a message of a text",
                kind=type(self.parts).__name__,
            )
        if not self.parts:
            raise PromptError("a message has no parts")
        for part in self.parts:
            if not isinstance(part, PARTS[self.role]):
                raise PromptError(
                    "a message of the role {role} cannot hold {kind}",
                    role=self.role.value,
                    kind=type(part).__name__,
                )

    @classmethod
    def of_text(cls, role: Role, text: str, token_ids: tuple[int, ...] | None = None) -> Message:
        """A message of one text, and the token ids that it was made of."""
        return cls(role, (Text(text, token_ids),))

    @classmethod
    def of(cls, value: Message | Mapping[str, Any]) -> Message:
        """A message from ``{"role": ..., "content": ...}``, or what else ``openai_shape`` describes.

        Raises:
            PromptError: it is not of that shape.
        """
        return value if isinstance(value, Message) else cls(*openai_shape.read(value))

    @property
    def text(self) -> str:
        """What was said, verbatim, without thoughts, files, tool calls and their results."""
        between = "" if self.role is Role.ASSISTANT else "\n"
        return between.join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def thought(self) -> str:
        """What a model thought before it said this."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Thought))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tools that it calls."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def files(self) -> tuple[AttachedFile, ...]:
        """The files that go with it."""
        return tuple(part for part in self.parts if isinstance(part, AttachedFile))

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The token ids of :attr:`text`; None where they are not known."""
        texts = [part for part in self.parts if isinstance(part, Text)]
        return texts[0].token_ids if len(texts) == 1 else None


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Sampling options of a reply; None leaves one to the checkpoint's own defaults.

    Attributes:
        temperature: 0 for greedy, otherwise the divisor of the logits.
        top_k: keep this many of the likeliest tokens; 0 for all.
        top_p: keep the likeliest tokens that together reach this probability.
        min_p: keep tokens at least this likely, relative to the likeliest.
        repetition_penalty: above 1 to make tokens less likely that were there already.
        seed: for the same reply again.
        max_new_tokens: at most this many tokens; None for what the context leaves.
        stop: strings that end the reply; what the model thinks before it they do not end.
        think: whether the model thinks before it answers, where it has a switch for that.
        think_tokens: end the thinking after so many tokens, and go on to the answer.
        grammar: what the reply keeps to, in llguidance's Lark; empty for nothing.
        trigger: the text behind which the grammar holds, each time until it is met; empty for all.
        tools: what the model may call, each as OpenAI's protocol has it: for models that are told of them
            so, and not by their prompt.
        logit_bias: what is added to the logits of tokens, by their ids, before one is chosen.
        likelihoods: tell how likely each token was, and so many of the likeliest; None to tell nothing.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    think_tokens: int | None = None
    grammar: str = ""
    trigger: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    likelihoods: int | None = None

    def __post_init__(self) -> None:
        # From Python these come as they like: one string, a list, a float.
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if not all(isinstance(text, str) and text for text in stop):
            raise UsageError("stop is {stop!r}, expected texts that are not empty", stop=self.stop)
        object.__setattr__(self, "stop", stop)
        for name in ("max_new_tokens", "think_tokens"):
            limit = getattr(self, name)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
                raise UsageError(
                    "{name} is {limit!r}, expected a whole number of 1 or more", name=name, limit=limit
                )
        if not isinstance(self.think, bool | None):
            raise UsageError("think is {value!r}, expected true, false or nothing", value=self.think)


OPTION_NAMES = tuple(
    field.name
    for field in fields(GenerationOptions)
    if field.name not in ("grammar", "trigger", "tools", "logit_bias", "likelihoods")
)
"""The options that are settings, too; the others are asked for one by one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply.

    Attributes:
        prompt_tokens: of the whole prompt.
        reused_tokens: those of them that were still in the KV cache.
        completion_tokens: of the reply.
    """

    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one reply.

    Attributes:
        first_token: from the request to the first token.
        prefill: running the prompt.
        decode: making the reply's tokens.
    """

    first_token: float
    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """The next piece of what the model thinks before it answers.

    Attributes:
        thought: the piece.
        text: always empty, as it is no part of the reply's text.
    """

    thought: str
    text: Literal[""] = ""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a token was, after those before it.

    Attributes:
        token_id: its id.
        written: its bytes, perhaps a part of a character; of a control token its written form.
        logprob: the natural logarithm of its probability by the model's own distribution: before the
            temperature and whatever else the sampling does to it.
    """

    token_id: int
    written: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenChosen:
    """The next token of a reply, before its text, where likelihoods are asked for; or the one that ended it.

    Attributes:
        token: what was chosen.
        top: the likeliest tokens in its place, in order.
        text: always empty.
    """

    token: Likelihood
    top: tuple[Likelihood, ...]
    text: Literal[""] = ""


@dataclass(frozen=True, slots=True)
class CallMade:
    """A whole call of a tool.

    Attributes:
        call: as the model wrote it.
        text: always empty.
    """

    call: ToolCall
    text: Literal[""] = ""


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """The last event of every reply.

    Attributes:
        finish_reason: why it ended.
        usage, timings: what it took.
        seed: what the sampler drew with; None if nothing was drawn.
        token_ids: the reply's tokens, without control tokens; None if they say more than the text does, as
            where a stop string cut a token.
        thought_ids: the tokens of what the model thought before, with the tags around it; None if it did not
            think, or they say more.
        guessed_tokens, right_tokens: tokens that were guessed ahead, and how many of them were right.
        stop: the stop string that ended it; empty if none did, or it is not known.
        alpha_changed: whether the prompt's length changed the NTK alpha, so that what was cached was useless.
        estimated: whether the usage is an estimate: nobody counted.
        text: always empty, so that the events' texts add up to the reply.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int | None = None
    token_ids: tuple[int, ...] | None = None
    thought_ids: tuple[int, ...] | None = None
    guessed_tokens: int = 0
    right_tokens: int = 0
    alpha_changed: bool = False
    stop: str = ""
    estimated: bool = False
    text: Literal[""] = ""


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """Progress of the prefill, between the request and the first token.

    Attributes:
        done, total: tokens of the prompt that are in the cache, and that there are.
    """

    done: int
    total: int
    text: Literal[""] = ""


Event = TextDelta | ThoughtDelta | TokenChosen | CallMade | PrefillProgress | ReplyEnd
