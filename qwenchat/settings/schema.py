"""The schema of the settings: keys, defaults, limits and help.

Owns the keys with their defaults, limits and help, and what ``@NAME`` stands for where a system prompt is
expected. Knows no file, model or terminal. Every "expected ..." in an error and the example config come
from the fields of :class:`Settings`, so they cannot drift from what is checked.
"""

# Annotations are values here, of which KEYS is made: so none are put off to strings.

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from qwenchat.engine.cpu.layout import MOST_THREADS
from qwenchat.engine.sampling import RANGES, Range
from qwenchat.i18n.language import tr
from qwenchat.settings import remote_table
from qwenchat.settings.choices import Backend, DType, Keys, KVCache, Language, Overflow, PromptLookup, Theme
from qwenchat.settings.kinds import LARGEST, InRange, Kind, Refused, Table, Tables, Text, Texts, Truth, Word

PROMPT_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class Key:
    """What there is to know of a setting besides its default.

    Args:
        kind: the values it takes.
        description: what it is for.
        allowed: the values, to be read after "expected"; the kind's words by default.
        example: a value to show in the example file, for a key whose default shows nothing.
        unset: what happens while a key without a default has no value.
    """

    kind: Kind
    description: str
    allowed: str = ""
    example: object = None
    unset: str = ""


_FROM_CHECKPOINT = "the checkpoint's generation_config.json decides"


def _is_prompt_name(name: str) -> bool:
    # In the file, a setting that stands below [prompts] would be a prompt, and be missed in silence.
    return PROMPT_NAME.fullmatch(name) is not None and name not in KEYS


@dataclass(frozen=True)
class Settings:
    """Every setting, checked.

    Raises:
        Refused: a value that cannot be; of several the one whose setting comes first.
    """

    model: Annotated[
        str,
        Key(
            Text(1),
            "The model to chat with. auto takes the checkpoint below if it is on this machine "
            "and fits, else the built-in one, which demo always takes.",
            '"auto", "demo", a known name, a folder, a URL#MODEL or the name of a remote',
        ),
    ] = "auto"
    checkpoint: Annotated[
        str,
        Key(Text(1), 'The checkpoint that model = "auto" looks for first.', "a known name or a folder"),
    ] = "Qwen/Qwen-7B-Chat-Int8"
    backend: Annotated[
        Backend,
        Key(
            Word(Backend),
            "What runs the model: native is our own engine, for Qwen, Llama and Mistral, huggingface is "
            "transformers, for these and others; auto takes our own wherever it can.",
        ),
    ] = "auto"
    device: Annotated[
        str,
        Key(
            Text(pattern=r"auto|cpu|cuda(:[0-9]+)?"),
            "Where the model runs.",
            '"auto", "cpu", "cuda" or "cuda:N"',
        ),
    ] = "auto"
    dtype: Annotated[
        DType,
        Key(Word(DType), "The number format that the model computes in."),
    ] = "auto"
    context: Annotated[
        int | None,
        Key(
            InRange(Range("a whole number, 16 or more", 16, LARGEST, whole=True)),
            "The size of the context window, in tokens.",
            example=8192,
            unset="the checkpoint's own seq_length",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Key(
            InRange(Range(f"a whole number, 1 to {MOST_THREADS}", 1, MOST_THREADS, whole=True)),
            "Threads on a CPU; by default its physical cores.",
            example=4,
            unset="as many as there are physical cores for the program",
        ),
    ] = None
    kv_cache: Annotated[
        KVCache,
        Key(
            Word(KVCache),
            "What the context is held in: auto is the number format above, int8 takes half the "
            "memory of 16 bits, for a little less exact answers.",
        ),
    ] = "auto"
    prompt_lookup: Annotated[
        PromptLookup,
        Key(
            Word(PromptLookup),
            "Whether a reply is guessed ahead where it repeats what was said, several tokens at a time: auto "
            "where that is faster and changes no reply, on wherever it can be, off never.",
        ),
    ] = "auto"
    overflow: Annotated[
        Overflow,
        Key(
            Word(Overflow),
            "What happens when a chat no longer fits the context: drop leaves the oldest turns "
            "out and says so, error answers nothing.",
        ),
    ] = "drop"
    system: Annotated[
        str | None,
        Key(
            Text(),
            "The system prompt; empty for none. @NAME stands for the one of that name under "
            "[prompts], @@ at the beginning for @ itself.",
            'text, or "@" and the name of a prompt',
            "Be brief.",
            "the model's own, if it has one",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Key(
            InRange(RANGES["temperature"]),
            "How freely the next token is drawn; 0 always takes the likeliest.",
            example=0.7,
            unset=_FROM_CHECKPOINT,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Key(
            InRange(RANGES["top_k"]),
            "Draw among this many of the likeliest tokens; 0 for all.",
            example=40,
            unset=_FROM_CHECKPOINT,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        Key(
            InRange(RANGES["top_p"]),
            "Draw among the likeliest tokens that together have this probability; 1 for all.",
            example=0.8,
            unset=_FROM_CHECKPOINT,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        Key(
            InRange(RANGES["min_p"]),
            "Draw among the tokens that have at least this share of the likeliest one's "
            "probability; 0 for all.",
            example=0.05,
            unset=_FROM_CHECKPOINT,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Key(
            InRange(RANGES["repetition_penalty"]),
            "How strongly tokens that were used already are held back; 1 for not at all.",
            example=1.1,
            unset=_FROM_CHECKPOINT,
        ),
    ] = None
    seed: Annotated[
        int | None,
        Key(
            InRange(RANGES["seed"]),
            "The seed of the random draw: the same seed, the same reply.",
            example=42,
            unset="a new one for every reply",
        ),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        Key(
            InRange(Range("a whole number, 1 or more", 1, LARGEST, whole=True)),
            "The longest reply, in tokens.",
            example=512,
            unset="as long as the context leaves room for",
        ),
    ] = None
    stop: Annotated[
        tuple[str, ...],
        Key(
            Texts(),
            "A reply ends before the first of these texts.",
            "a text or a list of texts, none of them empty",
        ),
    ] = ()
    tools: Annotated[
        tuple[str, ...],
        Key(
            Texts(),
            "What the model may call: Python files, and tools of the program with what they need, such as "
            "time or read_file,search_files=FOLDER.",
            "a text or a list of texts, none of them empty",
        ),
    ] = ()
    allow: Annotated[
        tuple[str, ...],
        Key(
            Texts(),
            "Calls that run without asking: rules such as time or read_file(path=docs/*).",
            "a text or a list of texts, none of them empty",
        ),
    ] = ()
    deny: Annotated[
        tuple[str, ...],
        Key(
            Texts(),
            "Calls that never run, whatever allows them: rules as above.",
            "a text or a list of texts, none of them empty",
        ),
    ] = ()
    max_steps: Annotated[
        int,
        Key(
            InRange(Range("a whole number, 1 or more", 1, LARGEST, whole=True)),
            "Steps with calls of tools that an answer may take.",
        ),
    ] = 8
    think: Annotated[
        bool | None,
        Key(
            Truth(),
            "Let the model think before it answers, or not, where it can do both.",
            example=False,
            unset="what the model does by itself",
        ),
    ] = None
    think_tokens: Annotated[
        int | None,
        Key(
            InRange(Range("a whole number, 1 or more", 1, LARGEST, whole=True)),
            "The longest thinking, in tokens; then the model is told to answer.",
            example=2048,
            unset="as long as the model thinks",
        ),
    ] = None
    show_thinking: Annotated[
        bool,
        Key(Truth(), "Show all that the model thinks: in the chat above the answer, with ask on stderr."),
    ] = False
    save: Annotated[
        bool,
        Key(Truth(), "Keep chats as sessions."),
    ] = True
    server: Annotated[
        bool,
        Key(Truth(), "Let a running qwenchat serve answer, if it has the very model that would be loaded."),
    ] = True
    history: Annotated[
        bool,
        Key(
            Truth(),
            "Keep the lines typed at the prompt, for the Up key in later chats. "
            "Where chats are not saved, they are not kept either.",
        ),
    ] = True
    plain: Annotated[
        bool,
        Key(Truth(), "No Markdown and no live view: a reply is shown as the text that comes."),
    ] = False
    theme: Annotated[
        Theme,
        Key(
            Word(Theme),
            "The colours. terminal takes those of the terminal's own palette, dark and light "
            "suit such a background, mono does without.",
        ),
    ] = "terminal"
    keys: Annotated[
        Keys,
        Key(Word(Keys), "The keys that edit the line at the prompt."),
    ] = "emacs"
    language: Annotated[
        Language,
        Key(
            Word(Language),
            "The language of notices and of /help; auto follows the locale. What the model says "
            "does not depend on it.",
        ),
    ] = "auto"
    quiet: Annotated[
        bool,
        Key(Truth(), "Print nothing on stderr but errors."),
    ] = False
    stats: Annotated[
        bool,
        Key(Truth(), "Print tokens and speed on stderr after each reply."),
    ] = False
    tools_python: Annotated[
        str | None,
        Key(
            Text(1),
            "The Python whose packages the code of a chat can import; the code runs in a sandbox.",
            "a path",
            example="/home/me/data/bin/python",
            unset="the one that runs qwenchat",
        ),
    ] = None
    remotes: Annotated[
        Mapping[str, Mapping[str, Any]],
        Key(
            Tables(remote_table.is_name, remote_table.FIELDS, remote_table.NEEDED),
            "Models on servers, by name: -m lab takes the one below. model may be left out where the "
            "server has one alone; the key stands in key_file, or in the environment variable that key_env "
            "names. "
            "QWENCHAT_REMOTES takes a JSON object.",
            "tables with url and perhaps model, key_file, key_env, ca_file, context, silence (seconds) "
            "and allow_http",
            {"lab": {"url": "https://lab.example/v1", "model": "qwen", "key_file": "~/.lab-key"}},
        ),
    ] = field(default_factory=dict)
    prompts: Annotated[
        Mapping[str, str],
        Key(
            Table(_is_prompt_name),
            'System prompts by name: system = "@teacher" takes the one below. [prompts] stays at '
            "the end of the file, since all that follows belongs to it; so no prompt can have a setting's "
            "name. QWENCHAT_PROMPTS takes a JSON object.",
            'texts that are not empty, under names of at most 64 letters, digits, "-" and "_"',
            {"teacher": "You explain things step by step."},
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in KEYS:
            object.__setattr__(self, key, checked(key, getattr(self, key)))


KEYS: Mapping[str, Key] = {name: kind.__metadata__[0] for name, kind in Settings.__annotations__.items()}
"""The settings by name, in the order of the example file."""


def default_of(key: str) -> object:
    """The value of a key that nobody has set; None where something else decides."""
    return getattr(Settings, key, {})  # of a table each has its own


def checked(key: str, value: object) -> Any:
    """The value as the setting has it.

    Raises:
        Refused: it cannot be.
    """
    if value is None and default_of(key) is None:
        return None
    try:
        return KEYS[key].kind.checked(value)
    except ValueError as error:
        raise Refused(key, getattr(error, "inside", ())) from None


def allowed(key: str) -> str:
    """The values that a key takes, to be read after "expected": "a number, 0 or more"."""
    return tr(KEYS[key].allowed or KEYS[key].kind.allowed)


def choices(key: str) -> tuple[str, ...]:
    """The words of a key that takes one of a few; nothing for any other key."""
    kind = KEYS[key].kind
    return kind.words if isinstance(kind, Word) else ()
