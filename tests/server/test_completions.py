"""``/v1/completions``: texts and token ids gone on with, echoed, and how likely they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.fake import ServedScript
from tests.server.serving import Serving, serving

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def model() -> ServedScript:
    return ServedScript(" Paris.")


@pytest.fixture(scope="module")
def server(model: ServedScript) -> Iterator[Serving]:
    with serving(model) as running:
        yield running


def test_a_text_is_gone_on_with(server: Serving, model: ServedScript) -> None:
    answer = server.ask(PATH, {"prompt": "It is", "max_tokens": 3, "temperature": 0}).json
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": " Pa", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["total_tokens"] == 8
    assert model.completed[-1] == list(b"It is")


def test_several_prompts_are_several_choices(server: Serving, model: ServedScript) -> None:
    answer = server.ask(PATH, {"prompt": [[65], [66, 67]], "max_tokens": 1}).json
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [(0, " "), (1, " ")]
    assert model.completed[-2:] == [[65], [66, 67]]
    assert answer["usage"]["prompt_tokens"] == 3
    assert len(server.ask(PATH, {"prompt": ["a", "b"]}).json["choices"]) == 2


def test_what_lm_eval_asks_for_is_told(server: Serving) -> None:
    """Token ids echoed with their likelihoods, and one token more."""
    asked = {"prompt": [[72, 105, 33]], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    (choice,) = server.ask(PATH, asked | {"seed": 1234}).json["choices"]
    assert choice["text"] == "Hi! "
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["H", "i", "!", " "]
    assert logprobs["token_logprobs"] == [None, -0.1, -0.2, -0.1]
    assert logprobs["top_logprobs"] == [None, {"i": -0.1}, {"!": -0.2}, {" ": -0.1}]
    assert logprobs["text_offset"] == [0, 1, 2, 3]


def test_a_prompt_alone_is_scored(server: Serving, model: ServedScript) -> None:
    before = len(model.completed)
    asked = {"prompt": "é", "echo": True, "logprobs": 0, "max_tokens": 0}
    (choice,) = server.ask(PATH, asked).json["choices"]
    assert choice["text"] == "é"
    assert choice["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert choice["logprobs"]["text_offset"] == [0, 0]
    assert choice["logprobs"]["top_logprobs"] == [None, None]
    assert len(model.completed) == before


def test_a_stream_adds_up_to_the_whole(server: Serving) -> None:
    asked = {"prompt": "It is", "echo": True, "logprobs": 1, "max_tokens": 9}
    whole = server.ask(PATH, asked).json["choices"][0]
    answer = server.ask(PATH, asked | {"stream": True, "stream_options": {"include_usage": True}})
    *chunks, usage = answer.events
    pieces = [chunk["choices"][0] for chunk in chunks]
    assert "".join(piece["text"] for piece in pieces) == whole["text"] == "It is Paris."
    told = [token for piece in pieces for token in piece["logprobs"]["tokens"]]
    assert told == whole["logprobs"]["tokens"]
    assert pieces[-1]["finish_reason"] == whole["finish_reason"] == "stop"
    assert usage["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], 2]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    server: Serving, fields: dict[str, Any], param: str
) -> None:
    answer = server.ask(PATH, fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def test_tokens_of_a_text_and_back(server: Serving) -> None:
    answer = server.ask("/tokenize", {"prompt": "Hi", "add_special_tokens": False, "return_token_strs": True})
    assert answer.json == {"tokens": [72, 105], "count": 2, "max_model_len": 4000, "token_strs": ["H", "i"]}
    chat = server.ask("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]}).json
    assert bytes(chat["tokens"]) == b"user:Hi;"
    assert server.ask("/detokenize", {"tokens": [72, 105]}).json["prompt"] == "Hi"
    assert server.ask("/detokenize", {"tokens": [72, "x"]}).json["error"]["param"] == "tokens[1]"
    assert server.ask("/detokenize", {}).json["error"]["param"] == "tokens"
    stops = server.ask("/v1/completions", {"prompt": "x", "stop": ["a", 5]}).json["error"]
    assert stops["message"] == "stop[1] is 5, expected text"
    assert server.ask("/tokenize", {}).json["error"]["param"] == "prompt"
    assert server.ask("/tokenizer_info").json["model_max_length"] == 4000
