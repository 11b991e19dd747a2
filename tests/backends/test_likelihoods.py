"""How likely tokens were, of a reply and of a prompt; and a bias on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qwenchat
from qwenchat.backends.local import Model
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, TokenChosen
from qwenchat.chat.parts import Role
from qwenchat.errors import PromptError

HELLO = [Message.of_text(Role.USER, "hello")]


@pytest.fixture
def model(tiny_chat: Path) -> Iterator[Model]:
    loaded = qwenchat.load(tiny_chat, device="cpu", dtype="float32")
    yield loaded
    loaded.close()


def asked(**options: Any) -> GenerationOptions:
    return GenerationOptions(temperature=0, repetition_penalty=1.0, max_new_tokens=5, **options)


def test_each_token_is_told_before_its_text_as_likely_as_the_logits_say(model: Model) -> None:
    events = list(model.stream(HELLO, asked(likelihoods=3)))
    told = [event for event in events if isinstance(event, TokenChosen)]
    end = events[-1]
    assert isinstance(end, ReplyEnd)
    assert end.token_ids is not None
    assert [event.token.token_id for event in told] == list(end.token_ids)
    ids = [*model.prompt_ids(HELLO), *end.token_ids]
    logprobs = torch.log_softmax(model.logits(ids), -1)[-len(told) - 1 : -1]
    for event, row in zip(told, logprobs, strict=True):
        assert event.token.logprob == pytest.approx(float(row[event.token.token_id]), abs=1e-4)
        assert event.token == event.top[0]  # greedy
        assert [other.logprob for other in event.top] == sorted((o.logprob for o in event.top), reverse=True)
        assert len(event.top) == 3


def test_asking_for_likelihoods_changes_no_reply(model: Model) -> None:
    for options in (asked(), GenerationOptions(seed=3, temperature=1.0, max_new_tokens=8)):
        plain = "".join(event.text for event in model.stream(HELLO, options))
        watched = "".join(event.text for event in model.stream(HELLO, replace(options, likelihoods=0)))
        assert plain == watched


def test_a_prompt_is_scored_as_its_logits_say(model: Model) -> None:
    ids = [*range(3, 40), *range(100, 80, -1)] * 5  # more than one chunk
    scored = model.score(ids, 2)
    logprobs = torch.log_softmax(model.logits(ids), -1)
    assert [token.token.token_id for token in scored] == ids[1:]
    for n in (0, 1, 63, 64, 255, 256, len(ids) - 2):
        assert scored[n].token.logprob == float(logprobs[n, ids[n + 1]])
        assert scored[n].top[0].token_id == int(logprobs[n].argmax())
    assert model.score(ids[:1]) == []


def test_a_bias_makes_tokens_come_or_stay_away(model: Model) -> None:
    (first, *_) = (
        e.token.token_id for e in model.stream(HELLO, asked(likelihoods=0)) if isinstance(e, TokenChosen)
    )
    without = [
        e.token
        for e in model.stream(HELLO, asked(likelihoods=0, logit_bias=((first, -100.0),)))
        if isinstance(e, TokenChosen)
    ]
    assert first not in [token.token_id for token in without]
    always = [
        e.token
        for e in model.stream(HELLO, asked(likelihoods=0, logit_bias=((65, 100.0),)))
        if isinstance(e, TokenChosen)
    ]
    assert [token.token_id for token in always] == [65] * 5
    assert always[0].logprob < -0.01  # by the model's own distribution
    with pytest.raises(PromptError):
        list(model.stream(HELLO, asked(logit_bias=((10**6, 1.0),))))


def test_the_token_that_ends_a_reply_is_told_without_text(model: Model) -> None:
    end = min(model.end_ids)
    events = list(model.complete([65, 66], asked(likelihoods=1, logit_bias=((end, 100.0),))))
    (told,) = (event for event in events if isinstance(event, TokenChosen))
    assert told.token.token_id == end
    assert "".join(event.text for event in events) == ""
    assert events[-1].finish_reason == "stop"  # type: ignore[union-attr]


def test_a_text_is_gone_on_with_as_it_is(model: Model) -> None:
    ids = model.text_ids("hello")
    assert ids == model.tokenizer.encode("hello")
    said = [event for event in model.complete(ids, asked()) if isinstance(event, ReplyEnd)]
    assert said[0].token_ids == tuple(
        model.generate(ids, temperature=0, repetition_penalty=1.0, max_new_tokens=5)
    )
