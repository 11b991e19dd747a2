"""Sampling options of a request in OpenAI's shape, and what its reply is held to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import OPTION_NAMES, GenerationOptions
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.refusals import Refused, unsupported
from qwenchat.server.service import Service
from qwenchat.tools.grammar import json_rule

IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "verbosity",
    "return_token_ids",
    "cache_prompt",
    "keep_alive",
)
"""Fields that cannot change what a reply says."""
MOST_STOPS = 64


def over(options: GenerationOptions, defaults: GenerationOptions) -> GenerationOptions:
    """The options, and where they leave one open, a default."""
    left = {name: getattr(defaults, name) for name in OPTION_NAMES if getattr(options, name) in (None, ())}
    return replace(options, **left)


def read_options(fields: Fields, service: Service, *, limits: tuple[str, ...]) -> GenerationOptions:
    """The options that all of OpenAI's protocols name alike, and those that other servers added to them.

    Args:
        limits: the names of the most tokens, the one that counts first.
    """
    given = [fields.whole(name, 1) for name in limits]
    for name in ("presence_penalty", "frequency_penalty"):
        if fields.number(name):
            raise unsupported(name, "is not supported here; repetition_penalty is")
    if fields.whole("n") not in (None, 1):
        raise unsupported("n", "is not supported beyond 1")
    repeated = fields.sampling("repetition_penalty")
    seed = fields.whole("seed", -(2**63), 2**63 - 1)
    options = GenerationOptions(
        temperature=fields.sampling("temperature"),
        top_k=_top_k(fields),
        top_p=fields.sampling("top_p"),
        min_p=fields.sampling("min_p"),
        repetition_penalty=fields.sampling("repeat_penalty", "repetition_penalty")
        if repeated is None
        else repeated,
        seed=None if seed is None else seed % 2**63,
        max_new_tokens=next((limit for limit in given if limit is not None), None),
        stop=read_stop(fields),
        think=read_think(fields, service.model),
        logit_bias=read_bias(fields),
    )
    return over(options, service.defaults)


def read_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    """What is added to the logits of tokens."""
    given = fields.inner("logit_bias")
    biases = []
    for name in given.names if given is not None else ():
        value = given.number(name) if given is not None else None
        if not name.isdecimal() or len(name) > 9 or value is None or not -100 <= value <= 100:
            raise Refused(
                400,
                "logit_bias has token ids with numbers from -100 to 100",
                param="logit_bias",
                code="invalid_value",
            )
        biases.append((int(name), float(value)))
    return tuple(biases)


def _top_k(fields: Fields) -> int | None:
    value = fields.whole("top_k", -1)
    return 0 if value == -1 else value  # as vLLM writes it


def read_stop(fields: Fields, name: str = "stop") -> tuple[str, ...]:
    """The stop strings, one or a list."""
    value = fields.raw(name)
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list):
        raise wrong(fields.place(name), value, "text, or a list of texts")
    for place, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise wrong(f"{fields.place(name)}[{place}]", stop, "text")
    if len(stops) > MOST_STOPS:
        raise Refused(400, f"{name} has {len(stops)} texts, expected {MOST_STOPS} at most", param=name)
    return tuple(stop for stop in stops if stop)


def read_think(fields: Fields, model: Backend) -> bool | None:
    """Whether the model is asked to think; where it has no switch, an effort asks for nothing."""
    asked = None
    template = fields.inner("chat_template_kwargs")
    if template is not None:
        if "enable_thinking" in template:
            asked = template.flag("enable_thinking")
        template.done()
    effort = fields.raw("reasoning_effort")
    if effort is not None and not isinstance(effort, str):
        raise wrong(fields.place("reasoning_effort"), effort, "text")
    return by_effort(effort, model) if asked is None else checked_think(asked, model)


def by_effort(effort: str | None, model: Backend) -> bool | None:
    """Whether an effort asks for thinking."""
    if effort is None or model.thinks != "switch":
        return None
    return effort not in ("none", "minimal")


def checked_think(asked: bool, model: Backend) -> bool | None:
    """Whether the model is to think.

    Raises:
        Refused: it cannot do as asked.
    """
    if model.thinks == "switch":
        return asked
    if asked != (model.thinks == "always"):
        raise unsupported("enable_thinking", f"is not for this model, which {_HABITS[model.thinks]} thinks")
    return None


_HABITS = {"never": "never", "always": "always"}


def format_grammar(value: Any, place: str) -> str:
    """The grammar of a ``response_format``; empty where it asks for none."""
    if value is None:
        return ""
    fields = Fields(value, place)
    kind = fields.choice("type", ("text", "json_object", "json_schema"), "text")
    if kind == "text":
        return ""
    if kind == "json_object":
        return schema_grammar({"type": "object"})
    inner = fields.inner("json_schema") or fields  # Responses has it one level up
    schema = inner.raw("schema")
    if not isinstance(schema, Mapping):
        raise wrong(inner.place("schema"), schema, "a JSON schema")
    return schema_grammar(schema)


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that fits a schema."""
    json.dumps(schema)
    return f"start: {json_rule(schema)}"
