"""The published chats of Qwen: their names, formats and sizes.

Owns what is known of them without a file of theirs. Knows nothing of what is on this machine, and loads no
torch. The shapes are ``shapes``'s.

Computed from the shapes: sizes on disk and in memory. On disk a matrix in GPTQ is what auto-gptq writes:
codes, a float16 scale and a zero point for every 128 inputs, ``g_idx``, and a bias, also where the model has
none; in AWQ the same without ``g_idx`` and bias. All else is 2 bytes a value. Vocabulary and JSON files, some
3 to 11 MB, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from qwenchat.engine.config import ModelConfig, QuantConfig
from qwenchat.engine.memory import need
from qwenchat.engine.sizes import bias_values, float_bytes, other_values, packed_bytes, quantized_matrices
from qwenchat.models.gguf_sizes import gguf_bytes
from qwenchat.models.shapes import SHAPES

GROUP = 128
"""Inputs that share a scale, in every quantised one."""
CONTEXT = 8192
"""Tokens that memory is counted for, where a chat was trained on more: loading settles for what fits."""

FLOAT, AWQ, GGUF = "bf16", "awq", "gguf"
BITS: Mapping[str, int | None] = {FLOAT: None, "int8": 8, "int4": 4, AWQ: 4, GGUF: None}
"""The formats by their names, with the bits of what GPTQ or AWQ quantised."""
_SMALL_GGUF = ("qwen3-0.6b", "qwen3-1.7b")  # published in Q8_0 alone
_HEAD_STORED = ("qwen3-0.6b", "qwen3-1.7b")  # though it is the embedding


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint.

    Attributes:
        name: of its repository, on the Hub and on ModelScope: "Qwen/Qwen-7B-Chat-Int8".
        chat: what all formats of the same chat are called: "qwen-7b-chat".
        format: one of :data:`BITS`.
        config: what its ``config.json`` says.
    """

    name: str
    chat: str
    format: str
    config: ModelConfig

    @property
    def short(self) -> str:
        """The name in lower case, without the owner: "qwen-7b-chat-int8"."""
        return _plain(self.name.rpartition("/")[2])

    @property
    def context(self) -> int:
        """The context that it was trained on, in tokens."""
        return self.config.seq_length

    @property
    def kind(self) -> str:
        """Of a repository with GGUF files, of which there are several kinds, the one that is proposed."""
        return "" if self.format != GGUF else "Q8_0" if self.chat in _SMALL_GGUF else "Q4_K_M"

    @property
    def to_pull(self) -> str:
        """What ``qwenchat models pull`` takes to fetch it."""
        return f"{self.short}:{self.kind.lower()}" if self.kind else self.short

    @property
    def disk_bytes(self) -> int:
        """The bytes of its weights on disk."""
        quant = self.config.quant
        if self.kind:
            return self._gguf_bytes(in_memory=False)
        if quant is None:
            head = self.config.vocab_size * self.config.hidden_size if self.chat in _HEAD_STORED else 0
            return float_bytes(self.config, 2) + 2 * head
        total = 2 * other_values(self.config)
        total -= 2 * bias_values(self.config) if self.format != AWQ else 0
        for outputs, inputs in quantized_matrices(self.config):
            codes = outputs * inputs * quant.bits // 8
            groups = quant.groups(inputs) * outputs
            total += codes + 2 * groups + groups * quant.bits // 8
            total += 4 * inputs + 2 * outputs if self.format != AWQ else 0
        return total

    def _gguf_bytes(self, *, in_memory: bool) -> int:
        # Qwen2.5's files have an output matrix also where it is the embedding.
        output = self.config.qkv_bias or not self.config.tie_word_embeddings
        return gguf_bytes(self.config, self.kind, output=output, in_memory=in_memory)

    @property
    def is_exact(self) -> bool:
        """Whether these are the bytes that are published; else they are about as many."""
        return self.format == FLOAT

    @property
    def token_bytes(self) -> int:
        """About the bytes of weights that a token reads on a CPU, where kernels read codes."""
        config = self.config
        table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        if self.kind:
            return self._gguf_bytes(in_memory=True) - table * 3 // 4
        return self.disk_bytes - 2 * table

    def memory_bytes(
        self,
        *,
        cuda: bool,
        itemsize: int,
        context: int | None = None,
        int8_cache: bool = False,
        packed: bool = True,
    ) -> int:
        """The most that loading it and chatting takes on a device, at any time.

        It is counted as the engine does before it loads a model.

        Args:
            cuda: whether the model goes to a GPU.
            itemsize: bytes of a value of the dtype that it computes in.
            context: positions of the KV cache; by default what it was trained on, or :data:`CONTEXT`.
            int8_cache: whether the KV cache is held in 8 bits.
            packed: whether our kernels compute, which keep quantised matrices in their codes.
        """
        if not packed or (self.kind and cuda):  # where a GGUF file becomes floats
            weights = float_bytes(self.config, itemsize)
        elif self.kind:
            weights = self._gguf_bytes(in_memory=True)
        else:
            weights = packed_bytes(self.config, floats=itemsize if cuda else 2, zeros=1 if cuda else 4)
        return need(
            self.config,
            weights=weights,
            reading=0,  # less than the KV cache takes later, which has not been made by then
            cuda=cuda,
            itemsize=itemsize,
            context=context or min(self.context, CONTEXT),
            packed=packed,
            int8_cache=int8_cache,
        ).total


def _repositories() -> Iterator[tuple[str, str, str]]:
    """Of every published checkpoint its name without the owner, its chat and its format."""
    first = {"Int8": "int8", "Int4": "int4"}
    gptq = {"GPTQ-Int8": "int8", "GPTQ-Int4": "int4"}
    for chat in SHAPES:
        family, *rest = chat.split("-")
        if family == "qwen":
            stem = f"Qwen-{rest[0].upper().replace('.', '_')}-Chat"
            suffixes = {**first, "": FLOAT}
        elif family == "qwen3":
            stem = f"Qwen3-{rest[0].upper()}"
            small = {"GPTQ-Int8": "int8"} if chat in _SMALL_GGUF else {"AWQ": AWQ}
            suffixes = {"": FLOAT, **small, "GGUF": GGUF}
        elif family == "qwq":
            stem, suffixes = "QwQ-32B", {"": FLOAT, "AWQ": AWQ, "GGUF": GGUF}
        else:
            words = [word.upper() if word[0].isdigit() else word.title() for word in rest]
            stem, suffixes = "-".join(["Qwen2.5", *words]), {"": FLOAT, **gptq, "AWQ": AWQ, "GGUF": GGUF}
        for suffix, format in suffixes.items():
            yield f"{stem}-{suffix}".removesuffix("-"), chat, format


def _published(name: str, chat: str, format: str) -> Published:
    bits = BITS[format]
    quant = None
    if bits is not None:
        awq = format == AWQ
        quant = QuantConfig(bits, GROUP, act_order=False, zeros_minus_one=not awq, awq=awq)
    return Published(f"Qwen/{name}", chat, format, replace(SHAPES[chat], quant=quant))


KNOWN = tuple(_published(*repository) for repository in _repositories())
"""All of them, the default first."""
DEFAULT = KNOWN[0]


def of(name: str) -> Published | None:
    """The published chat that a name means, or None.

    Args:
        name: in any case: "Qwen/Qwen-7B-Chat-Int8", or without the owner, where what all chats have may be
            left out: "qwen-7b-chat-int8", "7b-int8", "qwen2.5-7b-int4".
    """
    return _by_name().get(_plain(name))


def chat_of(name: str) -> str | None:
    """The chat that a name without owner and format means, "qwen2.5-7b", as :data:`SHAPES` calls it."""
    return _chats().get(_plain(name))


def brief(chat: str) -> str:
    """A chat's name without what all of its kind have in common: "qwen2.5-7b"."""
    return chat.removesuffix("-chat").removesuffix("-instruct")


def formats(chat: str) -> tuple[Published, ...]:
    """All formats in which a chat is published."""
    return tuple(known for known in KNOWN if known.chat == chat)


def _plain(name: str) -> str:
    return name.lower().replace("_", ".")


@cache
def _chats() -> Mapping[str, str]:
    """Every name of a chat, and what it is called in full."""
    names: dict[str, str] = {}
    for chat in SHAPES:
        short = brief(chat)
        # With an owner a shorter name would be that of the base model.
        names |= dict.fromkeys((chat, short, short.removeprefix("qwen-")), chat)
    return names


def names() -> Mapping[str, str]:
    """Every name that :func:`of` takes, in lower case, and the repository that it means."""
    return {name: known.name for name, known in _by_name().items()}


@cache
def _by_name() -> Mapping[str, Published]:
    names: dict[str, Published] = {}
    for known in KNOWN:
        suffixes = ("", "-bf16") if known.format == FLOAT else (f"-{known.format}",)
        names |= {
            f"{name}{suffix}": known
            for name, chat in _chats().items()
            for suffix in suffixes
            if chat == known.chat
        }
    return names | {known.short: known for known in KNOWN} | {_plain(known.name): known for known in KNOWN}
