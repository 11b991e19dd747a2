"""The configuration and the tokenizer, read by transformers before the weights.

Owns how it is asked, so that it runs nothing of a checkpoint and fetches nothing that one names, and what is
told when it cannot read something.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qwenchat.backends.huggingface.config_keys import check_keys, check_types
from qwenchat.backends.huggingface.files import HubFiles
from qwenchat.backends.huggingface.gguf_setting import add_to_config
from qwenchat.backends.huggingface.gguf_tokenizer import whole_tokenizer
from qwenchat.backends.prompts.sources import default_template, templates_in
from qwenchat.errors import CheckpointError, Phrase, QwenchatError, shorten
from qwenchat.files.json_values import read_json

if TYPE_CHECKING:
    from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt

T = TypeVar("T")


def trying(what: str, files: HubFiles, read: Callable[[], T]) -> T:
    """Run ``read``; whatever a hostile or damaged file makes of it becomes an error of one line."""
    import torch

    from qwenchat.engine.memory import ran_out_loading

    try:
        return read()
    except (QwenchatError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except torch.OutOfMemoryError as error:
        raise ran_out_loading() from error
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        # Whatever fails, transformers asks protobuf whether it was that; where that is not there, this fails.
        first = (isinstance(error, ImportError) and error.__context__) or error
        reason = f"{type(first).__name__}: {' '.join(str(first).split())[:300]}"
        raise CheckpointError(
            "{name}: {what} cannot be read: {reason}",
            "it is damaged, or of a kind that transformers {version} does not read",
            name=files.name,
            what=what,
            reason=reason,
            version=version(),
        ) from error


def version() -> str:
    """Of transformers."""
    import transformers

    return str(transformers.__version__)


def where(files: HubFiles) -> dict[str, Any]:
    """The arguments that every reader of transformers gets: from this folder, and no code from there."""
    places: dict[str, Any] = {
        "pretrained_model_name_or_path": str(files.folder),
        "local_files_only": True,
        "trust_remote_code": False,
    }
    # Whole: by a bare name transformers looks in the folder that one works in first.
    return {**places, "gguf_file": str(files.name.absolute())} if files.gguf else places


def read_config(files: HubFiles) -> Any:
    """The model's configuration, of an architecture that can chat here.

    Raises:
        CheckpointError: it is of another, or cannot be read.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = files.config.get("model_type")
    if not files.gguf and (not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES):
        raise _unknown(files, kind)
    if isinstance(kind, str):
        check_types(files.folder / "config.json", files.config, CONFIG_MAPPING[kind])
    what = Phrase("the model") if files.gguf else "config.json"
    config = trying(what, files, lambda: AutoConfig.from_pretrained(**where(files)))
    if files.head:
        add_to_config(files.head, config)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    names = files.config.get("architectures") or [causal]
    goes_on = not set(names).isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if config.is_encoder_decoder or causal is None or not goes_on:
        raise CheckpointError(
            "{name}: {kind} is not a language model",
            "a chat needs a ForCausalLM model",
            name=files.name,
            kind=names[0] or kind,
        )
    if not class_of(config)._supports_default_dynamic_cache():
        raise CheckpointError(
            "{name}: {kind} keeps its context in a way that is not supported",
            "models with attention in every layer are",
            name=files.name,
            kind=causal,
        )
    if not files.gguf:
        check_keys(files.folder / "config.json", files.config, config, class_of(config))
    return config


def _unknown(files: HubFiles, kind: object) -> CheckpointError:
    kind = shorten(kind, 60) if isinstance(kind, str) else kind
    if "auto_map" in files.config:
        return CheckpointError(
            "{name}: model_type {kind!r} needs code of its own (auto_map), which is never run",
            "look for the model in transformers' own format",
            name=files.name,
            kind=kind,
        )
    return CheckpointError(
        "{name}: transformers {version} knows no model_type {kind!r}",
        "it may be newer than that, or no language model",
        name=files.name,
        version=version(),
        kind=kind,
    )


def template_of(files: HubFiles) -> str:
    """The chat template. Needs neither torch nor a tokenizer.

    Raises:
        CheckpointError: none can be used.
    """
    templates = files.head.vocabulary.templates if files.head else templates_in(files.folder)
    return default_template(templates, files.name)


def read_prompt(files: HubFiles, config: Any, *, complete: bool) -> ChatPrompt | TextPrompt:
    """The chat template and the tokenizer.

    Args:
        complete: the model is to go on with a text, for which it needs no template.

    Raises:
        CheckpointError: one of them is not there, or cannot be read.
    """
    from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt
    from qwenchat.backends.prompts.hub_tokenizer import raw_tokenizer

    tokenizer = trying(Phrase("the tokenizer"), files, lambda: _read_tokenizer(files, config))
    names = {name: form for name, form in tokenizer.special_tokens_map.items() if isinstance(form, str)}
    raw = raw_tokenizer(tokenizer.backend_tokenizer, names)
    if complete:
        return TextPrompt(raw)
    return ChatPrompt(raw, template_of(files))


def _read_tokenizer(files: HubFiles, config: Any) -> Any:
    """The tokenizer, from the one file that the tokenizers library reads, or from the GGUF file."""
    if files.gguf:
        tokenizer, vocabulary = None, str(files.name.absolute())
    else:
        tokenizer, vocabulary = str(files.folder / "tokenizer.json"), None
        if not Path(tokenizer).is_file():
            raise _not_fast(Phrase("{name}: there is no tokenizer.json", name=files.name))
    kind = _class_of_tokenizer(files, config)
    arguments = inspect.signature(kind.__init__).parameters
    # What tokenizer_config.json says of these does not count. It may name an address, which would be fetched,
    # or have the tokenizer made anew from a file of sentencepiece, as Mistral's does.
    unsaid = {"add_prefix_space"} & {name for name, a in arguments.items() if a.default is None}
    sources = {"tokenizer_file": tokenizer, "vocab_file": vocabulary, "from_slow": False}

    def read() -> Any:
        return kind.from_pretrained(**where(files), **sources, **dict.fromkeys(unsaid))

    return whole_tokenizer(files.head, read) if files.head else read()


def _class_of_tokenizer(files: HubFiles, config: Any) -> Any:
    """The class of transformers for the tokenizer.

    By the name in a checkpoint its AutoTokenizer finds all that it has, and asks it to load itself: a
    processor, say, which then asks the user whether to run remote code.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING, tokenizer_class_from_name

    told = files.folder / "tokenizer_config.json"
    name = (read_json(told) if told.exists() else {}).get("tokenizer_class") or config.tokenizer_class
    if name:
        kind = tokenizer_class_from_name(f"{str(name).removesuffix('Fast')}Fast")
    else:
        _, kind = TOKENIZER_MAPPING.get(type(config), (None, None))
    # tokenizer.json is whole: a class adds only what its kind of tokenizer has of its own.
    fast = isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerFast)
    return kind if fast else PreTrainedTokenizerFast


def _not_fast(message: str) -> CheckpointError:
    return CheckpointError(message, "the tokenizers that transformers has in Python are not used")


def class_of(config: Any) -> Any:
    """The class of transformers for the model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
