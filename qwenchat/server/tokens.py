"""``/tokenize``, ``/detokenize``, ``/tokenizer_info``: a model's tokens, as vLLM serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from qwenchat.errors import QwenchatError
from qwenchat.server.exchange import Gone, read_fields, send_json
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.messages import read_messages
from qwenchat.server.refusals import of_error
from qwenchat.server.service import Service


class Answers:
    """An endpoint that is answered without the model, in a thread: a long text takes a while.

    Args:
        service: what serves.
        answer: makes the answer to a request.
    """

    def __init__(self, service: Service, answer: Callable[[Fields, Service], Any]) -> None:
        self._service, self._answer = service, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            fields = await read_fields(scope, receive, self._service.limits.body)
            answer = await asyncio.to_thread(self._answer, fields, self._service)
        except Gone:
            return
        except QwenchatError as error:
            raise of_error(error) from None
        await send_json(send, 200, answer)


def tokenize(fields: Fields, service: Service) -> dict[str, Any]:
    """The tokens of a text, or of the prompt of a chat."""
    service.check_name(fields.text("model", ""))
    special = fields.flag("add_special_tokens", True)
    strings = fields.flag("return_token_strs")
    model = service.model
    if "messages" in fields:
        messages = read_messages(fields.items("messages"))
        fields.done("add_generation_prompt", "continue_final_message")
        service.check_length(sum(len(message.text) for message in messages))
        ids = model.prompt_ids(messages)
    else:
        text = (
            fields.text("content") if "content" in fields else fields.text("prompt")
        )  # as llama-server has it
        fields.done()
        service.check_length(len(text))
        ids = model.text_ids(text) if special else model.tokenizer.encode(text)
        # What ends a reply has its own token where it is asked for alone: programs look its id up so.
        ids = [ends[text]] if text in (ends := _ends(service)) else ids
    told: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": model.context}
    if strings:
        told["token_strs"] = [model.tokenizer.decode_token(i).decode("utf-8", "replace") for i in ids]
    return told


def detokenize(fields: Fields, service: Service) -> dict[str, Any]:
    """The text of tokens."""
    service.check_name(fields.text("model", ""))
    if "tokens" not in fields:
        raise wrong("tokens", None, "a list of token ids")
    ids = fields.items("tokens")
    for place, token in enumerate(ids):
        if type(token) is not int or not 0 <= token < 2**31:
            raise wrong(f"tokens[{place}]", token, "a token id")
    fields.done()
    text = service.model.tokenizer.decode(ids)
    return {"prompt": text, "content": text}


def _ends(service: Service) -> dict[str, int]:
    """The tokens that end a reply, by their written forms."""
    decode = service.model.tokenizer.decode_token
    return {decode(i).decode("utf-8", "replace"): i for i in sorted(service.model.end_ids)}


class TokenizerInfo:
    """``/tokenizer_info``: what there is to know of the tokenizer, for programs that count by it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tells it."""
        model, ends = self._service.model, _ends(self._service)
        forms = list(ends)
        await send_json(
            send,
            200,
            {
                "tokenizer_class": "qwenchat",
                "model_max_length": model.context,
                "eos_token": forms[0] if forms else None,
                "bos_token": None,
                "pad_token": forms[0] if forms else None,
                "chat_template": None,
                "added_tokens_decoder": {str(token_id): {"content": form} for form, token_id in ends.items()},
            },
        )
