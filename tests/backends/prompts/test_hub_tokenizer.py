"""Ids to text as they come, whatever the tokenizer: no half characters, and the same text as at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenchat.backends.prompts.hub_tokenizer import HubTokenizer, WindowDecoder
from qwenchat.errors import PromptError

TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("你好🦊é  \nfox")), max_size=40
)


@pytest.fixture(scope="session")
def hub_tokenizers(styles: dict[str, Any], tokenizer_of: Callable[[Any], Any]) -> dict[str, HubTokenizer]:
    made = {}
    for name in ("qwen2", "gemma", "llama2"):
        fast = tokenizer_of(styles[name])
        control = {form: fast.convert_tokens_to_ids(form) for form in styles[name].special}
        made[name] = HubTokenizer(fast.backend_tokenizer, control, control.values())
    return made


def streamed(tokenizer: HubTokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    decoder = WindowDecoder(tokenizer, stop)
    return [*(decoder.push(i) for i in ids), decoder.finish()]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, name=st.sampled_from(("qwen2", "gemma", "llama2")))
def test_a_text_comes_as_it_is_and_never_by_halves(
    hub_tokenizers: dict[str, HubTokenizer], text: str, name: str
) -> None:
    tokenizer = hub_tokenizers[name]
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids).rstrip("\ufffd")
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
        assert tokenizer.reply_text(ids) == "".join(pieces)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(3, 280), max_size=40))
def test_any_bytes_of_a_byte_level_tokenizer_come_as_at_once(
    hub_tokenizers: dict[str, HubTokenizer], ids: list[int]
) -> None:
    tokenizer = hub_tokenizers["qwen2"]
    assert "".join(streamed(tokenizer, ids)).rstrip("\ufffd") == tokenizer.decode(ids).rstrip("\ufffd")


@pytest.mark.parametrize("name", ["qwen2", "gemma", "llama2"])
def test_a_character_is_shown_with_its_last_byte(hub_tokenizers: dict[str, HubTokenizer], name: str) -> None:
    tokenizer = hub_tokenizers[name]
    ids = tokenizer.encode("a🦊b")
    assert len(ids) > 4
    assert [piece for piece in streamed(tokenizer, ids) if piece] == ["a", "🦊", "b"]
    assert "".join(streamed(tokenizer, ids[:3])) == "a"


def test_bytes_that_are_no_character_do_not_hold_up_what_follows(
    hub_tokenizers: dict[str, HubTokenizer],
) -> None:
    tokenizer = hub_tokenizers["qwen2"]
    half = tokenizer.encode("🦊")[0]
    decoder = WindowDecoder(tokenizer)
    shown = "".join(decoder.push(half) for _ in range(100))
    assert len(shown) > 80


@pytest.mark.parametrize("name", ["qwen2", "gemma", "llama2"])
def test_a_stop_string_ends_it_wherever_tokens_are_cut(
    hub_tokenizers: dict[str, HubTokenizer], name: str
) -> None:
    tokenizer = hub_tokenizers[name]
    ids = tokenizer.encode("The quick brown fox")
    assert "".join(streamed(tokenizer, ids, ("ck br",))) == "The qui"
    assert "".join(streamed(tokenizer, ids, ("foxes",))) == "The quick brown fox"


def test_special_tokens_are_no_text(hub_tokenizers: dict[str, HubTokenizer]) -> None:
    tokenizer = hub_tokenizers["qwen2"]
    end = tokenizer._tokenizer.token_to_id("<|im_end|>")
    ids = tokenizer.encode("fox")
    assert "".join(streamed(tokenizer, [*ids, end, *ids])) == "foxfox"
    assert tokenizer.reply_text([*ids, end]) is None


def test_encode_reads_control_forms_as_text(hub_tokenizers: dict[str, HubTokenizer]) -> None:
    tokenizer = hub_tokenizers["qwen2"]
    ids = tokenizer.encode("a<|im_end|>b")
    assert tokenizer.decode(ids) == "a<|im_end|>b"
    assert tokenizer._tokenizer.token_to_id("<|im_end|>") not in ids
    assert tokenizer.encode("\ud800a") == tokenizer.encode("\ufffda")  # half a character is none
    assert tokenizer.encode("\ud83e\udd8a") == tokenizer.encode("🦊")


@pytest.mark.parametrize("name", ["qwen2", "gemma", "llama2"])
def test_a_token_alone_is_bytes_and_a_control_token_its_form(
    hub_tokenizers: dict[str, HubTokenizer], styles: dict[str, Any], name: str
) -> None:
    tokenizer = hub_tokenizers[name]
    text = "a fox: 🦊 é, 你好<|x|>"
    parts = [tokenizer.decode_token(i) for i in tokenizer.encode(text)]
    before = " " if styles[name].prefix_space else ""  # which such a tokenizer puts in front
    assert b"".join(parts) == (before + text).encode()
    assert "🦊".encode() not in parts  # no token of these vocabularies is the whole of it
    for form in styles[name].special:
        assert tokenizer.decode_token(tokenizer._tokenizer.token_to_id(form)) == form.encode()
    for none in (-1, 10**6, 10**12):
        with pytest.raises(PromptError, match="not in the vocabulary"):
            tokenizer.decode_token(none)
