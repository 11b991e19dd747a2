"""The schema of the settings: keys, defaults, limits, help, and how a text is read as a value.

Owns the keys with their defaults, limits and help, and what ``@NAME`` stands for where a system prompt is
expected. Knows no file, model or terminal. Every "expected ..." in an error and the example config come
from the fields of :class:`Settings`, so they cannot drift from what is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from qwenchat.engine.cpu.layout import MOST_THREADS
from qwenchat.engine.sampling import RANGES
from qwenchat.errors import ConfigError, Phrase
from qwenchat.i18n.language import tr
from qwenchat.settings.choices import Backend, DType, Keys, KVCache, Language, Overflow, Theme

_INT64 = 2**63  # every whole number ends up in a tensor or a seed
PROMPT_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class Help:
    """Help about a key besides its description.

    Args:
        allowed: the values it takes, to be read after "expected".
        example: a value to show in the example file, for a key whose default shows nothing.
        unset: what happens while a key without a default has no value.
    """

    allowed: str
    example: object = None
    unset: str = ""


def _one_of(kind: object) -> Help:
    """The help of a key that takes one of a few words."""
    *others, last = (f'"{word}"' for word in get_args(kind))
    return Help(f"{', '.join(others)} or {last}")


def _encodable(value: str) -> str:
    # Bytes of the environment or the command line that are not UTF-8 reach Python as lone
    # surrogates; better refused here, by name, than in the tokenizer.
    value.encode("utf-8")  # UnicodeEncodeError is a ValueError, which pydantic collects
    return value


def _prompt_name(name: str) -> str:
    # In the file, a setting that stands below [prompts] would be a prompt, and be missed in silence.
    if not PROMPT_NAME.fullmatch(name) or name in Settings.model_fields:
        raise ValueError(name)
    return name


_Text = Annotated[str, AfterValidator(_encodable)]
_SomeText = Annotated[_Text, Field(min_length=1)]
_PromptName = Annotated[str, AfterValidator(_prompt_name)]

_FROM_CHECKPOINT = "the checkpoint's generation_config.json decides"
_TRUTH = "true or false"


def _in_range(key: str) -> AfterValidator:
    """Refuses a sampling value outside its range."""

    def check(value: float | None) -> float | None:
        if value is not None and not RANGES[key].has(value):
            raise ValueError(RANGES[key].allowed)
        return value

    return AfterValidator(check)


class Settings(BaseModel):
    """Every setting, checked. Values are strict: text is not a number here, nor is 1 a truth."""

    # defer_build: the validator takes 20 ms to make, which `qwenchat --help` has no use for.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    model: Annotated[
        _SomeText,
        Field(
            description="The model to chat with. auto takes the checkpoint below if it is on this machine "
            "and fits, else the built-in one, which demo always takes.",
        ),
        Help('"auto", "demo", a known name or a folder'),
    ] = "auto"
    checkpoint: Annotated[
        _SomeText,
        Field(description='The checkpoint that model = "auto" looks for first.'),
        Help("a known name or a folder"),
    ] = "Qwen/Qwen-7B-Chat-Int8"
    backend: Annotated[
        Backend,
        Field(
            description="What runs the model: native is our own engine, for the first Qwen generation, "
            "huggingface is transformers, for all others; auto takes the one that reads the checkpoint.",
        ),
        _one_of(Backend),
    ] = "auto"
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description="Where the model runs."),
        Help('"auto", "cpu", "cuda" or "cuda:N"'),
    ] = "auto"
    dtype: Annotated[
        DType,
        Field(description="The number format that the model computes in."),
        _one_of(DType),
    ] = "auto"
    context: Annotated[
        int | None,
        Field(ge=16, lt=_INT64, description="The size of the context window, in tokens."),
        Help("a whole number, 16 or more", 8192, "the checkpoint's own seq_length"),
    ] = None
    threads: Annotated[
        int | None,
        Field(ge=1, le=MOST_THREADS, description="Threads on a CPU; by default its physical cores."),
        Help(
            f"a whole number, 1 to {MOST_THREADS}", 4, "as many as there are physical cores for the program"
        ),
    ] = None
    kv_cache: Annotated[
        KVCache,
        Field(
            description="What the context is held in: auto is the number format above, int8 takes half the "
            "memory of 16 bits, for a little less exact answers.",
        ),
        _one_of(KVCache),
    ] = "auto"
    overflow: Annotated[
        Overflow,
        Field(
            description="What happens when a chat no longer fits the context: drop leaves the oldest turns "
            "out and says so, error answers nothing.",
        ),
        _one_of(Overflow),
    ] = "drop"
    system: Annotated[
        _Text | None,
        Field(
            description="The system prompt; empty for none. @NAME stands for the one of that name under "
            "[prompts], @@ at the beginning for @ itself.",
        ),
        Help('text, or "@" and the name of a prompt', "Be brief.", "the model's own, if it has one"),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            description="How freely the next token is drawn; 0 always takes the likeliest.",
        ),
        _in_range("temperature"),
        Help(RANGES["temperature"].allowed, 0.7, _FROM_CHECKPOINT),
    ] = None
    top_k: Annotated[
        int | None,
        Field(description="Draw among this many of the likeliest tokens; 0 for all."),
        _in_range("top_k"),
        Help(RANGES["top_k"].allowed, 40, _FROM_CHECKPOINT),
    ] = None
    top_p: Annotated[
        float | None,
        Field(
            description="Draw among the likeliest tokens that together have this probability; 1 for all.",
        ),
        _in_range("top_p"),
        Help(RANGES["top_p"].allowed, 0.8, _FROM_CHECKPOINT),
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            description="Draw among the tokens that have at least this share of the likeliest one's "
            "probability; 0 for all.",
        ),
        _in_range("min_p"),
        Help(RANGES["min_p"].allowed, 0.05, _FROM_CHECKPOINT),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            description="How strongly tokens that were used already are held back; 1 for not at all.",
        ),
        _in_range("repetition_penalty"),
        Help(RANGES["repetition_penalty"].allowed, 1.1, _FROM_CHECKPOINT),
    ] = None
    seed: Annotated[
        int | None,
        Field(description="The seed of the random draw: the same seed, the same reply."),
        _in_range("seed"),
        Help(RANGES["seed"].allowed, 42, "a new one for every reply"),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        Field(ge=1, lt=_INT64, description="The longest reply, in tokens."),
        Help("a whole number, 1 or more", 512, "as long as the context leaves room for"),
    ] = None
    stop: Annotated[
        tuple[_SomeText, ...],
        Field(description="A reply ends before the first of these texts."),
        Help("a text or a list of texts, none of them empty"),
    ] = ()
    save: Annotated[
        bool,
        Field(description="Keep chats as sessions."),
        Help(_TRUTH),
    ] = True
    history: Annotated[
        bool,
        Field(
            description="Keep the lines typed at the prompt, for the Up key in later chats. "
            "Where chats are not saved, they are not kept either.",
        ),
        Help(_TRUTH),
    ] = True
    plain: Annotated[
        bool,
        Field(description="No Markdown and no live view: a reply is shown as the text that comes."),
        Help(_TRUTH),
    ] = False
    theme: Annotated[
        Theme,
        Field(
            description="The colours. terminal takes those of the terminal's own palette, dark and light "
            "suit such a background, mono does without.",
        ),
        _one_of(Theme),
    ] = "terminal"
    keys: Annotated[
        Keys,
        Field(description="The keys that edit the line at the prompt."),
        _one_of(Keys),
    ] = "emacs"
    language: Annotated[
        Language,
        Field(
            description="The language of notices and of /help; auto follows the locale. What the model says "
            "does not depend on it.",
        ),
        _one_of(Language),
    ] = "auto"
    quiet: Annotated[
        bool,
        Field(description="Print nothing on stderr but errors."),
        Help(_TRUTH),
    ] = False
    stats: Annotated[
        bool,
        Field(description="Print tokens and speed on stderr after each reply."),
        Help(_TRUTH),
    ] = False
    prompts: Annotated[
        Mapping[_PromptName, _SomeText],
        Field(
            description='System prompts by name: system = "@teacher" takes the one below. [prompts] stays at '
            "the end of the file, since all that follows belongs to it; so no prompt can have a setting's "
            "name. QWENCHAT_PROMPTS takes a JSON object.",
        ),
        Help(
            'texts that are not empty, under names of at most 64 letters, digits, "-" and "_"',
            {"teacher": "You explain things step by step."},
        ),
    ] = {}

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value


def help_of(key: str) -> Help:
    """The help of a key."""
    return next(item for item in Settings.model_fields[key].metadata if isinstance(item, Help))


def allowed(key: str) -> str:
    """The values that a key takes, to be read after "expected": "a number from 0 to 2"."""
    return tr(help_of(key).allowed)


def choices(key: str) -> tuple[str, ...]:
    """The words of a key that takes one of a few; nothing for any other key."""
    annotation = Settings.model_fields[key].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that somebody may have meant; empty if none is close."""
    import difflib

    return next(iter(difflib.get_close_matches(name, names, n=1)), "")


# --- a value from a text -------------------------------------------------------------------------

_TRUTHS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def read_setting(key: str, text: str, quoted: str = "") -> object:
    """The checked value of a key that a text says.

    Of an option that has no default, an empty text, "default" and "auto" mean None; of a list or a
    table, an empty text means none.

    Args:
        key: the setting.
        text: what somebody typed, such as "0.7", "on" or '["a", "b"]'.
        quoted: how an error names it; the key if empty.

    Raises:
        ConfigError: there is no such setting, or the text is no value of it.
    """
    if key not in Settings.model_fields:
        near = nearest(key.lower(), Settings.model_fields)
        hint = Phrase("did you mean {nearest}?", nearest=near) if near else ""
        raise ConfigError(Phrase("unknown setting {name}", name=key), hint)
    default = Settings.model_fields[key].default
    if default is None and text.strip().lower() in ("", "default", "auto"):
        return None
    if default in ((), {}) and text.strip().lower() in ("", "default"):
        return getattr(Settings(), key)
    try:
        return getattr(Settings.model_validate({key: parse_text(key, text)}), key)
    except ValidationError:
        raise ConfigError("{setting}: expected {what}", setting=quoted or key, what=allowed(key)) from None


def parse_text(key: str, text: str) -> object:
    """Reads a text as the type of its key, not checked yet. Text that is no such value stays text, which
    the check then refuses."""
    annotation = Settings.model_fields[key].annotation
    kinds = get_args(annotation) or (annotation,)
    origin = get_origin(annotation)
    if origin is tuple:
        return _parse_json("[", text)  # or the one text that it is: "[END]" is a fair stop string
    if origin is Mapping:
        return _parse_json("{", text)
    with suppress(ValueError):
        if bool in kinds:
            return _TRUTHS.get(text.strip().lower(), text)
        if int in kinds:
            return int(text)
        if float in kinds:
            return float(text)
    return text


def _parse_json(bracket: str, text: str) -> Any:
    """The JSON that begins with this bracket; the text itself if there is none."""
    if text.lstrip().startswith(bracket):
        import json

        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text
