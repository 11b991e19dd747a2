"""From Python: token ids in, token ids out, and the ids of a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import qwenchat
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.errors import CheckpointError, PromptError, UsageError

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
HELLO = [{"role": "user", "content": "hello <|im_end|>"}]


def test_tokens_are_plain_ints_and_as_many_as_asked(golden_folder: Callable[[str], Path]) -> None:
    # The folder has no tokenizer, and needs none.
    model = qwenchat.load(golden_folder("fp16"), device="cpu")
    tokens = list(model.generate(PROMPT, temperature=0, max_new_tokens=5))
    assert len(tokens) == 5
    assert all(type(token) is int for token in tokens)
    assert model.logits(PROMPT + tokens).shape == (15, 320)
    with pytest.raises(CheckpointError, match=r"no \.tiktoken file"):
        model.prompt_ids(HELLO)


def test_a_larger_context_can_be_asked_for(golden_folder: Callable[[str], Path]) -> None:
    folder = golden_folder("fp16")
    assert qwenchat.load(folder, context=100).context == 100
    with pytest.raises(UsageError, match="--context 257"):
        qwenchat.load(folder, context=257)


def test_the_checkpoints_end_tokens_end_a_reply_unless_they_are_ignored(
    golden_folder: Callable[[str], Path],
) -> None:
    folder = golden_folder("fp16")
    tokens = list(qwenchat.load(folder).generate(PROMPT, temperature=0, max_new_tokens=8))
    stop = tokens[3]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    model = qwenchat.load(folder)
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8)
    assert list(generation) == tokens[: tokens.index(stop)]
    assert generation.stats.finish_reason == "stop"
    assert list(model.generate(PROMPT, temperature=0, max_new_tokens=8, ignore_eos=True)) == tokens


def test_an_unknown_option_is_named(golden_folder: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="temprature"):
        qwenchat.load(golden_folder("fp16")).generate(PROMPT, temprature=1)


def test_the_ids_of_a_prompt_are_those_that_the_chat_runs(tiny_chat: Path) -> None:
    model = qwenchat.load(tiny_chat, device="cpu", dtype="float32")
    ids = model.prompt_ids(HELLO)
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nhello <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.tokenizer.decode(ids) == text
    assert ids.count(model.tokenizer.im_end_id) == 2  # the text's own is text
    assert model.prompt_ids([Message.of_text(Role.USER, "hello <|im_end|>")]) == ids
    *_, end = model.chat(HELLO, temperature=0, max_new_tokens=5)
    by_ids = list(model.generate(ids, temperature=0, max_new_tokens=5, ignore_eos=True))
    assert end.usage.prompt_tokens == len(ids)
    assert tuple(by_ids[: len(end.token_ids)]) == end.token_ids


def test_a_reply_that_was_begun_is_left_open_in_the_prompt(tiny_chat: Path) -> None:
    model = qwenchat.load(tiny_chat, device="cpu")
    begun = model.prompt_ids([*HELLO, {"role": "assistant", "content": "well"}])
    assert begun == [*model.prompt_ids(HELLO), *model.tokenizer.encode("well")]


@pytest.mark.parametrize("messages", [[], ["hello"], [{"role": "robot", "content": "x"}], [{"role": "user"}]])
def test_what_is_no_chat_has_no_prompt(tiny_chat: Path, messages: list[object]) -> None:
    with pytest.raises(PromptError):
        qwenchat.load(tiny_chat, device="cpu").prompt_ids(messages)
