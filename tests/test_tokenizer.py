"""The tokenizer against the original's ids, and the decoder against every way to cut a stream."""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwenchat.tokenizer
from qwenchat import paths
from qwenchat.chat.chatml import content_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.errors import CheckpointError, PromptError
from qwenchat.text.vocabulary import Vocabulary
from qwenchat.tokenizer import IncrementalDecoder, QwenTokenizer
from tests.places import GOLDEN

ROWS = json.loads((GOLDEN / "tokenizer.json").read_text())


@pytest.fixture(scope="module")
def qwen() -> QwenTokenizer:
    return QwenTokenizer.default()


def test_the_shipped_vocabulary_is_the_checkpoints_own() -> None:
    file = Path(qwenchat.tokenizer.__file__).parent / "data" / "qwen.tiktoken"
    expected = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == expected


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_ids_equal_the_originals(qwen: QwenTokenizer, row: dict[str, list[int]]) -> None:
    assert qwen.encode(row["text"]) == row["ids_no_special"]
    assert qwen.encode(row["text"], allowed_special="all") == row["ids_all_special"]


def test_special_tokens_have_the_originals_ids(qwen: QwenTokenizer) -> None:
    assert qwen.special_tokens["<|endoftext|>"] == 151643
    assert (qwen.im_start_id, qwen.im_end_id) == (151644, 151645)
    assert qwen.special_tokens["<|extra_204|>"] == 151850
    assert qwen.n_vocab == 151851


def test_only_the_named_special_form_is_parsed(qwen: QwenTokenizer) -> None:
    ids = qwen.encode("<|im_start|><|im_end|>", allowed_special={"<|im_end|>"})
    assert ids[-1] == qwen.im_end_id
    assert qwen.im_start_id not in ids


def test_decode_gives_the_text_back(qwen: QwenTokenizer) -> None:
    for row in ROWS:
        text = unicodedata.normalize("NFC", row["text"])
        assert qwen.decode(row["ids_no_special"]) == text
        assert qwen.decode(row["ids_all_special"]) == text


def test_a_token_alone_is_bytes_perhaps_half_a_character(qwen: QwenTokenizer) -> None:
    text = "naïve 🦊 <|im_end|>"
    parts = [qwen.decode_token(i) for i in qwen.encode(text)]
    assert b"".join(parts) == text.encode()
    sign = [qwen.decode_token(i) for i in qwen.encode("𓂀")]
    assert len(sign) > 1
    assert b"".join(sign).decode() == "𓂀"
    assert qwen.decode_token(qwen.im_end_id) == b"<|im_end|>"
    for none in (-1, 151900, 10**12):
        with pytest.raises(PromptError, match="not in the vocabulary"):
            qwen.decode_token(none)


def test_decode_refuses_an_id_that_no_token_has(qwen: QwenTokenizer) -> None:
    with pytest.raises(PromptError, match="151900"):
        qwen.decode([151900])


@pytest.mark.parametrize("unit", [" ", "\t ", "\u3000", "\n", "a", "!", "你"])
def test_runs_without_end_are_encoded(qwen: QwenTokenizer, unit: str) -> None:
    text = unit * (1_000_000 // len(unit)) + "x"
    assert qwen.decode(qwen.encode(text)) == text


def test_accents_without_end_do_not_take_hours(qwen: QwenTokenizer) -> None:
    text = "e" + "\u0301\u0316" * 100_000
    assert sorted(qwen.decode(qwen.encode(text))) == sorted(text)


def test_lone_surrogates_do_not_stop_the_encoder(qwen: QwenTokenizer) -> None:
    assert qwen.encode("a\udc80b")


# --- vocabulary files --------------------------------------------------------------------------


def write_vocabulary(folder: Path, ranks: dict[bytes, int], config: dict[str, object] | None = None) -> Path:
    lines = (f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items())
    (folder / "v.tiktoken").write_text("\n".join(lines) + "\n")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


BYTES = {bytes([b]): b for b in range(256)}


def test_a_folders_vocabulary_gets_qwens_special_tokens(tmp_path: Path) -> None:
    tokenizer = QwenTokenizer.from_folder(write_vocabulary(tmp_path, BYTES))
    assert tokenizer.endoftext_id == 256
    assert tokenizer.n_vocab == 256 + 208
    assert tokenizer.encode("é<|im_end|>")[:2] == list("é".encode())


def test_bytes_that_no_token_has_are_left_out_instead_of_aborting(tmp_path: Path) -> None:
    ranks = {token: rank for token, rank in BYTES.items() if token not in (b"\x04", b"\xf1")}
    tokenizer = QwenTokenizer.from_folder(write_vocabulary(tmp_path, ranks))
    assert tokenizer.encode("a\x04b") == [97, 98]
    assert max(tokenizer.encode("\U00040000")) < tokenizer.n_vocab


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "distinct tokens"),
        (b"YQ== 0\nYQ== 1\n", "distinct tokens"),
        (b"YQ== 0\nYg== 0\n", "distinct"),
        (b"YQ== -1\n", "from 0 up"),
        (b"YQ== 99999999999999999999\n", "from 0 up"),
        (b"YQ==\n", r"v\.tiktoken:1"),
        (b"YQ== 0\n!!!! 1\n", r"v\.tiktoken:2"),
        (b"YQ== zero\n", r"v\.tiktoken:1"),
        (b"\xff\xfe\x00\n", r"v\.tiktoken:1"),
    ],
)
def test_a_damaged_vocabulary_is_named_with_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "v.tiktoken").write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        QwenTokenizer.from_folder(tmp_path)


def test_a_vocabulary_of_more_lines_than_any_has_is_refused_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "v.tiktoken").write_bytes(b"QQ== 0\n" * (2**19 + 1))
    with pytest.raises(CheckpointError, match="more than 524288 lines"):
        QwenTokenizer.from_folder(tmp_path)


def test_more_special_tokens_than_any_vocabulary_has_are_refused(tmp_path: Path) -> None:
    many = {str(i): {"content": f"<{i}>"} for i in range(400, 400 + 2**12)}
    long = {"303": {"content": "x" * 2**17}}
    for more, complaint in ((many, "more than 4096 tokens"), (long, "more than 131072 letters")):
        write_vocabulary(tmp_path, BYTES, {"added_tokens_decoder": CHATML | more})
        with pytest.raises(CheckpointError, match=complaint):
            QwenTokenizer.from_folder(tmp_path)


CHATML = {
    str(number): {"content": form}
    for number, form in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), 300)
}


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"split_pattern": "(a+)+$"}, "split_pattern"),
        ({"split_pattern": ["a"]}, "split_pattern"),
        ({"added_tokens_decoder": {"300": {"content": "<|im_end|>"}}}, r"<\|endoftext\|>"),
        ({"added_tokens_decoder": {"x": {"content": "<|im_end|>"}}}, "malformed"),
        ({"added_tokens_decoder": [1]}, "malformed"),
        ({"added_tokens_decoder": {"300": {"content": "\ud800"}}}, "a lone surrogate"),
        ({"added_tokens_decoder": {**CHATML, "303": {"content": "\ud800"}}}, "a lone surrogate"),
        (
            {
                "added_tokens_decoder": {
                    "97": {"content": "<|im_end|>"},
                    "300": {"content": "<|im_start|>"},
                    "301": {"content": "<|endoftext|>"},
                }
            },
            "both an ordinary and a special",
        ),
    ],
)
def test_a_tokenizer_config_cannot_make_text_a_control_token(
    tmp_path: Path, config: dict[str, object], complaint: str
) -> None:
    write_vocabulary(tmp_path, BYTES, config)
    with pytest.raises(CheckpointError, match=complaint):
        QwenTokenizer.from_folder(tmp_path)


def test_a_vocabulary_is_read_once_and_kept_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vocabulary(tmp_path, BYTES)
    QwenTokenizer.from_folder(tmp_path)
    (kept,) = (paths.cache_dir() / "vocabularies").iterdir()
    monkeypatch.setattr(Vocabulary, "of", None)
    assert QwenTokenizer.from_folder(tmp_path).encode("ab") == [97, 98]
    assert kept.exists()


def test_a_kept_vocabulary_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, BYTES)
    QwenTokenizer.from_folder(tmp_path)
    (kept,) = (paths.cache_dir() / "vocabularies").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"?")
    assert QwenTokenizer.from_folder(tmp_path).encode("ab") == [97, 98]
    assert kept.read_bytes() == whole


def test_another_vocabulary_is_not_taken_for_the_one_that_is_kept(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, BYTES)
    QwenTokenizer.from_folder(tmp_path)
    write_vocabulary(tmp_path, {token: 255 - i for token, i in BYTES.items()})
    assert QwenTokenizer.from_folder(tmp_path).encode("a") == [255 - 97]


def test_a_vocabulary_is_read_where_nothing_can_be_kept(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, BYTES)
    paths.cache_dir().parent.mkdir(parents=True, exist_ok=True)
    paths.cache_dir().write_text("a file where the folder would be")
    assert QwenTokenizer.from_folder(tmp_path).encode("ab") == [97, 98]


@pytest.mark.parametrize("ids", [[10**9], [-5], [10**30], [97, 10**9]])
def test_ids_of_no_token_are_no_reply_however_they_look(ids: list[int]) -> None:
    qwen = QwenTokenizer.default()
    said = Message.of_text(Role.ASSISTANT, "".join(stream(qwen, ids)), tuple(ids))
    assert "\ufffd" in said.text
    assert qwen.reply_text(ids) is None
    assert content_ids(qwen, said) == qwen.encode(said.text)


# --- decoding as tokens come -------------------------------------------------------------------


def stream(tokenizer: QwenTokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    decoder = IncrementalDecoder(tokenizer, stop)
    return [*(decoder.push(i) for i in ids), decoder.finish()]


@given(st.text())
@settings(max_examples=300)
def test_pieces_add_up_to_the_text_and_none_holds_half_a_character(text: str) -> None:
    qwen = QwenTokenizer.default()
    text = unicodedata.normalize("NFC", text)
    pieces = stream(qwen, qwen.encode(text))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_character_of_several_tokens_comes_once_it_is_whole(qwen: QwenTokenizer) -> None:
    ids = qwen.encode("👩\u200d👧")
    pieces = stream(qwen, ids)
    assert len(ids) > 3
    assert "".join(pieces) == "👩\u200d👧"
    assert "" in pieces[:-1]


def test_half_a_character_at_the_end_is_dropped(qwen: QwenTokenizer) -> None:
    ids = qwen.encode("\U0001f6dc")
    assert len(ids) > 1
    assert "".join(stream(qwen, ids[:-1])) == ""


def test_a_real_replacement_character_stays(qwen: QwenTokenizer) -> None:
    assert "".join(stream(qwen, qwen.encode("a\ufffdb"))) == "a\ufffdb"


def test_special_tokens_add_nothing_and_unknown_ids_are_seen(qwen: QwenTokenizer) -> None:
    assert "".join(stream(qwen, [qwen.im_start_id, *qwen.encode("a"), 151900])) == "a\ufffd"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_end_the_text_wherever_tokens_are_cut(text: str, stop: list[str]) -> None:
    qwen = QwenTokenizer.default()
    first_end, start = min(((text + s).find(s) + len(s), (text + s).find(s)) for s in stop)
    expected = text[:start] if first_end <= len(text) else text
    letters = [qwen.encode(letter)[0] for letter in text]
    assert "".join(stream(qwen, letters, tuple(stop))) == expected
    assert "".join(stream(qwen, qwen.encode(text), tuple(stop))) == expected


def test_no_more_is_held_back_than_could_become_a_stop_string(qwen: QwenTokenizer) -> None:
    decoder = IncrementalDecoder(qwen, ("END",))
    given_out = [decoder.push(i) for letter in "aENbEND" for i in qwen.encode(letter)]
    assert given_out == ["a", "", "", "ENb", "", "", ""]
    assert decoder.stopped


def test_an_empty_stop_string_is_refused(qwen: QwenTokenizer) -> None:
    with pytest.raises(PromptError):
        IncrementalDecoder(qwen, ("",))
