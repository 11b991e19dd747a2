"""SentencePiece vocabularies of GGUF files: the tokens of a plain reading of the algorithm."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest

import qwenchat
from benchmarks.tokens import TEXTS
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.backends.native.chat_prompt import gguf_prompt
from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt
from qwenchat.errors import CheckpointError, NotComputedError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.vocabulary import read_vocabulary
from tests.backends.native import scored_words
from tests.backends.native.scored_words import DEFINED
from tests.engine import gguf_models

TEMPLATE = (
    "{% for m in messages %}{{ '<s>[' + m['role'] + ']' }} {{ m['content'] }}{{ '</s>' }}{% endfor %}"
    "{{ '<s>[assistant]' }}"
)


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return scored_words.keys()


def prompt_of(path: Path, said: dict[str, Any]) -> ChatPrompt | TextPrompt:
    """The prompt of a file that has a vocabulary and nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in said.items():
        writer.add_key_value(key, value, *_types(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return prompt_in(path)


def prompt_in(path: Path) -> ChatPrompt | TextPrompt:
    """The prompt of a file."""
    vocabulary = read_vocabulary(read_gguf(path))
    return gguf_prompt(vocabulary, len(vocabulary.tokens), complete=True)


def _types(value: Any) -> tuple[Any, ...]:
    kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
    if isinstance(value, list):
        kind = "INT32" if isinstance(value[0], int) else kinds[type(value[0])]
        return gguf.GGUFValueType.ARRAY, gguf.GGUFValueType[kind]
    return (gguf.GGUFValueType[kinds[type(value)]],)


def plainly(said: dict[str, Any], text: str) -> list[int]:
    """The ids of a text: of all neighbours that are a token the ones with the highest score are joined."""
    words = {
        word: (token_id, score)
        for token_id, (word, score, kind) in enumerate(
            zip(*(said[f"tokenizer.ggml.{k}"] for k in ("tokens", "scores", "token_type")), strict=True)
        )
        if kind == 1
    }
    ids: list[int] = []
    for part in text.replace(DEFINED, f"\0{DEFINED}\0").split("\0") if "\0" not in text else [text]:
        if part == DEFINED:
            ids.append(said["tokenizer.ggml.tokens"].index(DEFINED))
            continue
        parts = list(("\u2581" + part.replace(" ", "\u2581")) if part else "")
        while True:
            pairs = [a + b for a, b in pairwise(parts)]
            known = [(-words[pair][1], i) for i, pair in enumerate(pairs) if pair in words]
            if not known:
                break
            _, i = min(known)
            parts[i : i + 2] = [pairs[i]]
        for word in parts:
            ids += [words[word][0]] if word in words else [3 + byte for byte in word.encode()]
    return ids


def test_texts_become_the_tokens_of_the_highest_scores(tmp_path: Path, said: dict[str, Any]) -> None:
    tokenizer = prompt_of(tmp_path / "v.gguf", said).tokenizer
    for text in (*TEXTS, f"a {DEFINED} b", f"{DEFINED}{DEFINED}x", "a" * 40, "-" * 23 + " " * 9):
        assert tokenizer.encode(text) == plainly(said, text), text
        if DEFINED not in text:  # behind which a space is put in
            assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")
    assert tokenizer.encode("<s>") == plainly(said, "<s>") != [1]


def test_runs_and_equal_scores_are_joined_from_the_left(tmp_path: Path, said: dict[str, Any]) -> None:
    count = len(said["tokenizer.ggml.tokens"])
    runs = ["a" * 2, "a" * 3, "a" * 5, "ab", "ba", "aab"]
    tokens = said["tokenizer.ggml.tokens"][:-1] + [
        run for run in runs if run not in said["tokenizer.ggml.tokens"]
    ]
    more = len(tokens) - count + 1
    scores = said["tokenizer.ggml.scores"][:-1] + [-3.0] * more
    types = said["tokenizer.ggml.token_type"][:-1] + [1] * more
    keys = {"tokens": tokens, "scores": scores, "token_type": types}
    changed = said | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    tokenizer = prompt_of(tmp_path / "v.gguf", changed).tokenizer
    for text in ("a" * 7, "aabaaab", "abababa", "baaaaab" * 5):
        assert tokenizer.encode(text) == plainly(changed, text), text


def test_a_chat_has_the_templates_control_tokens_and_those_of_no_text(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    few = scored_words.keys(320, ["hello there hi user system hi there"] * 9)
    unused = gguf_models.VOCABULARY - len(few["tokenizer.ggml.tokens"])
    for key, value in (("tokens", [f"[PAD{i}]" for i in range(unused)]), ("scores", [-1000.0] * unused)):
        few[f"tokenizer.ggml.{key}"] += value
    few["tokenizer.ggml.token_type"] += [5] * unused
    keys = few | {"tokenizer.chat_template": TEMPLATE}
    gguf_models.write(tmp_path / "m.gguf", "llama", "Q8_0", keys=keys)
    told: list[str] = []
    model = qwenchat.load(tmp_path / "m.gguf", device="cpu", dtype="float32", notice=told.append)
    assert isinstance(model, NativeBackend)
    assert told == []
    ids = model.prompt_ids([{"role": "user", "content": "hi </s> there"}])
    assert [i for i in ids if i in (1, 2)] == [1, 2, 1]
    assert ids[0] == 1
    written = model.tokenizer.decode([i for i in ids if i not in (1, 2)])
    assert written == "[user] hi </s> there [assistant]"


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"scores": None}, CheckpointError, "its tokens have no scores"),
        ({"scores": [0.0, 1.0]}, CheckpointError, "scores of its tokens are not as many"),
        ({"token_type": "no bytes"}, NotComputedError, "has no tokens for all bytes"),
    ],
)
def test_a_vocabulary_that_is_not_read_exactly_is_refused(
    tmp_path: Path, said: dict[str, Any], change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    count = len(said["tokenizer.ggml.tokens"])
    made = {"no bytes": [1] * count}
    changed = said | {f"tokenizer.ggml.{k}": made.get(str(v), v) for k, v in change.items()}
    with pytest.raises(error, match=reason):
        prompt_of(tmp_path / "v.gguf", {key: value for key, value in changed.items() if value is not None})
