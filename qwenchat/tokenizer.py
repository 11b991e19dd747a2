"""Qwen's byte-level BPE: text to token ids, ids to text, and what of a reply's text is certain.

Owns the vocabulary files and the special tokens; how text becomes tokens is ``byte_pair_tokenizer``'s.

The file format is tiktoken's: a line per token, its bytes in base64, a space, its id. The pattern
and the special tokens are those of ``tokenization_qwen.py`` in the Qwen-7B checkpoints.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwenchat import paths
from qwenchat.errors import CheckpointError, Phrase, PromptError, quoted
from qwenchat.files.atomic import make_private_folder, write_temporary
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import read_file, reason_of
from qwenchat.text.byte_pair_tokenizer import BytePairTokenizer, Merging
from qwenchat.text.overlap import overlap
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.text.vocabulary import Damaged, Vocabulary

ENDOFTEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
QWEN_SPECIALS = (ENDOFTEXT, IM_START, IM_END, *(f"<|extra_{i}|>" for i in range(205)))

# Far above any published vocabulary's; a special token costs far more than its bytes.
_MAX_VOCABULARY_BYTES = 16 * 2**20
_MAX_PACKED_BYTES = 2 * _MAX_VOCABULARY_BYTES
_MOST_TOKENS = 2**19
_MOST_SPECIALS = 2**12
_MOST_SPECIAL_LETTERS = 2**17
_MAX_IDS = 2**24


class QwenTokenizer(BytePairTokenizer):
    """Text to token ids and back, for the first Qwen generation.

    Args:
        vocabulary: the ordinary tokens' bytes and ids; lower ids merge first.
        special_tokens: the control tokens' written forms and ids; ``<|endoftext|>``,
            ``<|im_start|>`` and ``<|im_end|>`` must be among them.
        pattern: the regular expression that splits text before merging.
        n_ids: how many ids the model has. It can draw those that stand for nothing, too.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        special_tokens: Mapping[str, int],
        pattern: str,
        n_ids: int | None = None,
    ) -> None:
        super().__init__(Merging(vocabulary, pattern), special_tokens, n_ids=n_ids)
        self.endoftext_id = special_tokens[ENDOFTEXT]
        self.im_start_id = special_tokens[IM_START]
        self.im_end_id = special_tokens[IM_END]

    @classmethod
    def default(cls) -> QwenTokenizer:
        """The Qwen vocabulary that this package carries: tokens without a checkpoint."""
        return _default()

    @classmethod
    def from_folder(cls, folder: Path, n_ids: int | None = None) -> QwenTokenizer:
        """The tokenizer of a checkpoint folder, from its ``.tiktoken`` file.

        ``tokenizer_config.json`` may name the special tokens (``added_tokens_decoder``) and one of
        the known split patterns (``split_pattern``); without it they are Qwen's.

        Raises:
            CheckpointError: there is no vocabulary, or a file of it is damaged.
        """
        files = sorted(folder.glob("*.tiktoken"))
        if len(files) != 1:
            raise CheckpointError(
                "{name}: expected one .tiktoken file, found {count}",
                "the vocabulary belongs to the checkpoint; fetch it again",
                name=folder,
                count=len(files),
            )
        vocabulary = _open_vocabulary(files[0])
        config_path = folder / "tokenizer_config.json"
        config = read_json(config_path) if config_path.exists() else {}
        specials = _read_specials(config_path, config, first_id=vocabulary.last_id + 1)
        clash = [i for i in specials.values() if vocabulary.bytes_of(i) is not None]
        if clash:
            # Or some ordinary text would encode to a control token.
            raise CheckpointError(
                "{name}: the id {id} is both an ordinary and a special token", name=files[0], id=min(clash)
            )
        name = config.get("split_pattern", "qwen")
        if not isinstance(name, str) or name not in SPLIT_PATTERNS:
            raise CheckpointError(
                "{name}: split_pattern is {value}, expected {names}",
                name=config_path,
                value=quoted(name),
                names=Phrase(" or ").join(SPLIT_PATTERNS),
            )
        return cls(vocabulary, specials, SPLIT_PATTERNS[name], n_ids)


class StopStrings:
    """Text as it comes, up to the first stop string.

    Text is given out as soon as it is certain: what could be the beginning of a stop string once it is not.

    Args:
        stop: strings that end the text; neither they nor what follows is given out.

    Attributes:
        stopped: the one that was met; empty while none was.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise PromptError("a stop string is empty", "leave it out")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = ""

    def push(self, text: str) -> str:
        """Takes the next piece; returns the text that became certain, perhaps none."""
        if self.stopped:
            return ""
        text = self._held + text
        # The one that is whole first, wherever pieces are cut; of two that end together the longer.
        matches = [(start + len(s), start, s) for s in self._stop if (start := text.find(s)) >= 0]
        if matches:
            _, start, self.stopped = min(matches)
            self._held = ""
            return text[:start]
        keep = max((overlap(text, s) for s in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text still held back."""
        held, self._held = self._held, ""
        return held


class IncrementalDecoder:
    """Token ids to text as they come, for a reply; a character is given out once its last byte is there.

    Args:
        tokenizer: of the ids.
        stop: as of :class:`StopStrings`.
    """

    def __init__(self, tokenizer: BytePairTokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopStrings(stop)

    @property
    def stopped(self) -> str:
        """The stop string that was met; empty while none was."""
        return self._stops.stopped

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became certain, perhaps none."""
        return self._stops.push(self._utf8.decode(self._tokenizer.reply_bytes(token_id)))

    def finish(self) -> str:
        """The text still held back. Half a character at the very end is dropped."""
        return self._stops.finish()


@lru_cache(maxsize=1)
def _default() -> QwenTokenizer:
    vocabulary = _open_vocabulary(Path(__file__).parent / "data" / "qwen.tiktoken")
    specials = {form: len(vocabulary) + i for i, form in enumerate(QWEN_SPECIALS)}
    return QwenTokenizer(vocabulary, specials, SPLIT_PATTERNS["qwen"])


def _open_vocabulary(path: Path) -> Vocabulary:
    """The tokens of a ``.tiktoken`` file, packed in our cache folder since it was first read."""
    try:
        data, _ = read_file(path, _MAX_VOCABULARY_BYTES)
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if (kept := find_kept(digest)) is not None:
        return kept
    vocabulary = Vocabulary.of(_ranks_of(data, path))
    keep(digest, vocabulary)
    return vocabulary


def find_kept(digest: str) -> Vocabulary | None:
    """The vocabulary that was made of a source with this digest, packed in our cache folder; None if not."""
    with suppress(OSError, Damaged):
        return Vocabulary(read_file(_place(digest), _MAX_PACKED_BYTES, links=False)[0])
    return None


def keep(digest: str, vocabulary: Vocabulary) -> None:
    """Puts a vocabulary where :func:`find_kept` finds it."""
    place = _place(digest)
    with suppress(OSError):  # the next start takes as long, that is all
        make_private_folder(place.parent)
        write_temporary(place, vocabulary.packed).replace(place)


def _place(digest: str) -> Path:
    return paths.cache_dir() / "vocabularies" / digest


def _ranks_of(data: bytes, path: Path) -> dict[bytes, int]:
    if data.count(b"\n") > _MOST_TOKENS:
        raise CheckpointError(
            "{path} has more than {limit} lines, expected a vocabulary", path=path, limit=_MOST_TOKENS
        )
    lines = data.splitlines()
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise CheckpointError(
                "{name}: expected a token in base64 and its id", name=f"{path}:{number}"
            ) from None
    ids = ranks.values()
    if len(ranks) != sum(map(bool, lines)) or len(set(ids)) != len(ids) or not _in_range(ids):
        raise CheckpointError("{name}: expected distinct tokens with distinct ids from 0 up", name=path)
    return ranks


def _in_range(ids: Collection[int]) -> bool:
    return bool(ids) and min(ids) >= 0 and max(ids) < _MAX_IDS


def _read_specials(path: Path, config: Mapping[str, Any], *, first_id: int) -> dict[str, int]:
    entries = config.get("added_tokens_decoder")
    if not entries:
        return {form: first_id + i for i, form in enumerate(QWEN_SPECIALS)}
    if isinstance(entries, dict) and len(entries) > _MOST_SPECIALS:
        raise CheckpointError(
            "{name}: added_tokens_decoder has more than {most} tokens", name=path, most=_MOST_SPECIALS
        )
    try:
        specials = {str(entry["content"]): int(token_id) for token_id, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(
            "{name}: added_tokens_decoder is malformed, expected ids and contents", name=path
        ) from None
    for form in (ENDOFTEXT, IM_START, IM_END):
        if form not in specials:
            raise CheckpointError(
                "{name}: the special token {form} is missing from added_tokens_decoder", name=path, form=form
            )
    if len(set(specials.values())) != len(entries) or not _in_range(specials.values()) or "" in specials:
        raise CheckpointError(
            "{name}: added_tokens_decoder has a token or an id twice, or an empty token", name=path
        )
    if sum(map(len, specials)) > _MOST_SPECIAL_LETTERS:
        raise CheckpointError(
            "{name}: added_tokens_decoder has more than {most} letters", name=path, most=_MOST_SPECIAL_LETTERS
        )
    return specials
