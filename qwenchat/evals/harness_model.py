"""The model class of lm-evaluation-harness over a backend.

How a task is asked and scored is the harness's own protocol, not the card's. A model on a server has no
log-likelihoods here: it does the tasks that generate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from qwenchat.backends.local import Model
from qwenchat.chat.messages import GenerationOptions, Message, TextDelta
from qwenchat.errors import UsageError

if TYPE_CHECKING:
    import torch

    from qwenchat.chat.backend import Backend

NAME = "qwenchat"
"""By which the harness knows it."""
_MOST_TOKENS = 256
"""Of a reply, where a task says nothing: the harness's own."""

Request = tuple[tuple[str, str], list[int], list[int]]


@register_model(NAME)
class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model for the harness.

    Args:
        model: a backend that is loaded, or what :func:`qwenchat.load` takes.
        batch_size, max_batch_size: not looked at: requests are made one after the other.
        loading: of :func:`qwenchat.load`: device, dtype, backend, context, threads.
    """

    def __init__(
        self,
        model: str | Backend = "auto",
        *,
        batch_size: object = 1,
        max_batch_size: object = None,
        **loading: Any,
    ) -> None:
        super().__init__()
        if isinstance(model, str):
            from qwenchat.backends.load import load

            model = load(model, **loading)
        self._backend = model
        self._chats: dict[str, list[int]] = {}
        self._row: tuple[tuple[int, ...], torch.Tensor] | None = None

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> HarnessModel:
        """From the harness's command line, which names a GPU where nobody has: what was said of it counts."""
        import torch

        others = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(others.get("device", "")).startswith("cuda") and not torch.cuda.is_available():
            del others["device"]
        return cls(**{**others, **arg_dict})

    @property
    def eot_token_id(self) -> int:
        """The token that ends a reply."""
        return min(self._local().end_ids)

    @property
    def prefix_token_id(self) -> int:
        """What a text follows that has nothing before it: what every text begins with, or else its end."""
        return next(iter(self._local().text_ids("")), self.eot_token_id)

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return str(self._backend.name)

    @property
    def max_length(self) -> int:
        """Tokens of context and continuation."""
        return int(self._backend.context)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **more: Any) -> list[int]:
        """The tokens of a text; of a chat those that its template made, control tokens and all."""
        if (ids := self._chats.get(string)) is not None:
            return list(ids)
        return list(self._local().tokenizer.encode(string))

    def chat_template(self, chat_template: bool | str = False) -> str:
        """What tells a template from another in the harness's cache."""
        return f"qwenchat {self._backend.name}" if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the model reads it; for one on a server as JSON, which comes back as it is."""
        if not isinstance(self._backend, Model):
            return json.dumps(chat_history, ensure_ascii=False)
        ids = self._backend.prompt_ids([Message.of(one) for one in chat_history])
        text = b"".join(map(self._backend.tokenizer.decode_token, ids)).decode("utf-8", "replace")
        self._chats[text] = ids  # of the text they could not be had again: it may say the same by itself
        return text

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in windows where they are longer than the context."""
        found = []
        for (text,) in (request.args for request in requests):
            pieces = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows = map(utils.make_disjoint_window, pieces)
            found.append(sum(self._scored(context, wanted)[0] for context, wanted in windows))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The replies, up to a stop."""
        found = []
        for context, settings in (request.args for request in requests):
            until, options = options_of(settings)
            text = "".join(self._said(context, options))
            for stop in until:
                text = text.partition(stop)[0]
            found.append(text)
            self.cache_hook.add_partial("generate_until", (context, settings), text)
        return found

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context in self._chats:
            return self.tok_encode(context), self.tok_encode(continuation)
        context_ids, wanted = super()._encode_pair(context, continuation)
        return list(context_ids), list(wanted)

    def _loglikelihood_tokens(self, requests: Sequence[Request], **more: Any) -> list[tuple[float, bool]]:
        found = []
        for key, context, wanted in requests:
            found.append(self._scored(context, wanted))
            self.cache_hook.add_partial("loglikelihood", key, found[-1])
        return found

    def _scored(self, context: Sequence[int], wanted: Sequence[int]) -> tuple[float, bool]:
        """The log-likelihood of tokens behind others, and whether each was the likeliest."""
        import torch

        ids = [*context, *wanted][-(self.max_length + 1) :][:-1]
        rows = self._rows(ids, len(wanted))
        token_ids = torch.tensor(list(wanted))
        likelihood = float(rows.gather(1, token_ids[:, None]).double().sum())
        return likelihood, bool((rows.argmax(-1) == token_ids).all())

    def _rows(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """The log-probabilities after the last tokens [count, V]; of one alone they are kept for the next."""
        import torch

        key = tuple(ids)
        if count == 1 and self._row is not None and self._row[0] == key:
            return self._row[1]
        rows = torch.log_softmax(self._local().logits(ids)[-count:], -1)
        self._row = (key, rows) if count == 1 else None
        return rows

    def _said(self, context: str, options: GenerationOptions) -> Iterator[str]:
        if isinstance(self._backend, Model):
            limit = options.max_new_tokens or _MOST_TOKENS
            room = max(1, self.max_length - limit)
            events = self._backend.complete(self.tok_encode(context)[-room:], options)
        else:
            events = self._backend.stream(_chat(context), options)
        with closing(events):
            yield from (event.text for event in events if isinstance(event, TextDelta))

    def _local(self) -> Model:
        if not isinstance(self._backend, Model):
            raise UsageError("{model} gives no logits: it runs elsewhere", model=self._backend.name)
        return self._backend


def options_of(settings: Mapping[str, Any]) -> tuple[list[str], GenerationOptions]:
    """The stops and the options that a task asks for; greedy where it does not ask to sample."""
    until = settings.get("until") or []
    until = [until] if isinstance(until, str) else list(until)
    stops = tuple(stop for stop in until if stop)
    sampled = settings.get("do_sample", False) and settings.get("temperature", 0.0) > 0
    return list(stops), GenerationOptions(
        temperature=float(settings["temperature"]) if sampled else 0.0,
        top_p=settings.get("top_p") if sampled else None,
        max_new_tokens=int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or _MOST_TOKENS),
        stop=stops,
    )


def _chat(context: str) -> list[Message]:
    """The messages of a prompt for a server: a chat, or a question."""
    try:
        value = json.loads(context)
    except ValueError:
        value = None
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [Message.of(one) for one in value]
    return [Message.of({"role": "user", "content": context})]
