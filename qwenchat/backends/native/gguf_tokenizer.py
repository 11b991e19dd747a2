"""The vocabulary of a GGUF file, read as a tokenizer of our own."""

from __future__ import annotations

from qwenchat.backends.native.bpe import MOST_ADDED, Added, BytePairs, NativeTokenizer, NoMerge
from qwenchat.errors import CheckpointError, Names, NotComputedError, quoted
from qwenchat.gguf.pre_tokenizers import PRE_TOKENIZERS
from qwenchat.gguf.vocabulary import GGUFVocabulary, TokenType
from qwenchat.text.merges import Inexact

_KINDS = {"llama": "SentencePiece", "t5": "SentencePiece"}


def read_gguf_tokenizer(vocabulary: GGUFVocabulary, n_ids: int | None = None) -> NativeTokenizer:
    """The tokenizer that a GGUF file describes.

    Control and user-defined tokens are one id each; no text becomes a control token by itself.

    Args:
        n_ids: how many ids the model has.

    Raises:
        CheckpointError: it is of a kind that is not read, or damaged.
    """
    if vocabulary.model != "gpt2":
        raise NotComputedError(
            "{name}: its tokenizer is of the kind {kind}, and our own engine reads byte-level BPE (gpt2)",
            "look for the model's safetensors, or use --backend huggingface",
            in_chat="look for the model's safetensors, or start qwenchat with --backend huggingface",
            name=vocabulary.path,
            kind=_KINDS.get(vocabulary.model) or quoted(vocabulary.model),
        )
    how = PRE_TOKENIZERS.get(vocabulary.pre or "default")
    if how is None:
        raise NotComputedError(
            "{name}: its pre-tokenizer is {pre}; our own engine reads {known}",
            "look for the model's safetensors, or use --backend huggingface",
            in_chat="look for the model's safetensors, or start qwenchat with --backend huggingface",
            name=vocabulary.path,
            pre=quoted(vocabulary.pre or "default"),
            known=Names(PRE_TOKENIZERS),
        )
    added = vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
    control = vocabulary.of_type(TokenType.CONTROL)
    if len(set(vocabulary.tokens)) != len(vocabulary.tokens):
        raise CheckpointError("{name}: a token is there twice", name=vocabulary.path)
    if len(added) > MOST_ADDED:
        raise CheckpointError(
            "{name}: {count} control and user-defined tokens, expected at most {most}",
            name=vocabulary.path,
            count=len(added),
            most=MOST_ADDED,
        )
    pairs = BytePairs(
        {word: i for i, word in enumerate(vocabulary.tokens) if word and i not in added},
        vocabulary.merges,
        how.whole,
        [Added(i, form, i in control, verbatim=True) for i, form in added.items()],
        how.pattern,
        how.normal_form,
    )
    try:
        tokenizer = pairs.tokenizer(n_ids)
    except NoMerge as error:
        raise CheckpointError(
            "{name}: {merge} is no merge, expected two tokens",
            name=vocabulary.path,
            merge=quoted(error.args[0]),
        ) from error
    except Inexact as error:
        raise NotComputedError(
            "{name}: its merges do not give its tokens",
            "look for the model's safetensors, or use --backend huggingface",
            in_chat="look for the model's safetensors, or start qwenchat with --backend huggingface",
            name=vocabulary.path,
        ) from error
    begin = (vocabulary.ids["bos"],) if vocabulary.begins and "bos" in vocabulary.ids else ()
    return NativeTokenizer(tokenizer, begin)
