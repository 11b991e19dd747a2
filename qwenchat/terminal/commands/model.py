"""The commands about the model and how it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qwenchat.chat.messages import OPTION_NAMES
from qwenchat.errors import UsageError, shorten
from qwenchat.i18n.language import plural, tr
from qwenchat.settings.prompts import named_prompt
from qwenchat.settings.reading import read_setting
from qwenchat.settings.schema import allowed
from qwenchat.terminal import console, stats
from qwenchat.terminal.commands.registry import Group
from qwenchat.terminal.input import attachments
from qwenchat.terminal.stats import stats_text

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_NONE, _DEFAULT = "none", "default"
_group = Group("The model")
command = _group.command


def _prompt_names(chat: Chat, rest: str) -> Iterable[tuple[str, str]]:
    prompts = chat.settings.prompts.items()
    return [*prompts, *((f"@{name}", text) for name, text in prompts), (_NONE, ""), (_DEFAULT, "")]


@command(
    "system",
    "Show the system prompt, or set it: a text, the name of one in the config, none, or default for the "
    "model's own.",
    usage="[TEXT|NAME|none|default]",
    complete=_prompt_names,
)
def _system(chat: Chat, rest: str) -> None:
    if not rest:
        for line in _system_in_force(chat).splitlines():
            chat.say(line or " ")
        return
    if rest in chat.settings.prompts:
        rest = f"@{rest}"
    if rest == _DEFAULT:
        chat.conversation.system = None
        chat.save_and_say(tr("the system prompt is the model's own again; the chat is read anew"))
        return
    chat.conversation.system = "" if rest == _NONE else named_prompt(chat.settings, rest)
    if text := chat.conversation.system:
        chat.save_and_say(tr("the system prompt is now {text!r}; the chat is read anew", text=shorten(text)))
    else:
        chat.save_and_say(tr("there is no system prompt any more; the chat is read anew"))


def _system_in_force(chat: Chat) -> str:
    """The system prompt that the model reads, and whose it is."""
    if chat.conversation.system is not None:
        return chat.conversation.system or tr("there is no system prompt")
    if chat.backend is None:
        return tr("the model's own system prompt, which is known once it is loaded")
    if not chat.backend.system:
        return tr("there is no system prompt; the model has none of its own")
    return tr("the model's own system prompt: {text}", text=chat.backend.system)


def _model_names(chat: Chat, rest: str) -> Iterator[str]:
    """Names, or once a path is begun the folders and GGUF files that it may become."""
    yield from chat.model_names()
    if rest.startswith(("~", ".", "/")):
        # What is typed is taken as it is: a path that would need quotes cannot be.
        found = (path for path in attachments.complete_path(rest) if "\\" not in path)
        yield from (path for path in found if path.endswith("/") or path.lower().endswith(".gguf"))


@command("model", "Show the model, or load another.", usage="[NAME]", complete=_model_names)
def _model(chat: Chat, rest: str) -> None:
    if rest:
        chat.load(rest)
    elif chat.backend is None:
        chat.say(chat.model)
    else:
        chat.say(tr("{value} ({origin})", value=chat.backend.name, origin=chat.backend.description))


def _option_names() -> list[str]:
    return list(OPTION_NAMES)


def _option_completions(chat: Chat, rest: str) -> Iterator[tuple[str, str]]:
    name = rest.partition(" ")[0]
    if name != rest and name in _option_names():
        yield f"{name} {_DEFAULT}", tr("(the model decides)")
        return
    for name in _option_names():
        yield name, allowed(name)


@command(
    "set",
    "Show the sampling options, or set one; default leaves it to the model.",
    usage="[NAME VALUE]",
    aliases=(":conf", ":config"),
    complete=_option_completions,
)
def _set(chat: Chat, rest: str) -> None:
    words = rest.replace("=", " ", 1).split(None, 1)
    if not words:
        _show_options(chat, _option_names())
        return
    name = words[0].replace("-", "_")
    if name not in _option_names():
        raise UsageError(
            "unknown option {name}",
            "there are {names}",
            name=words[0],
            names=tr(", ").join(_option_names()),
        )
    if len(words) > 1:
        _set_option(chat, name, words[1].strip())
    _show_options(chat, [name])


@command(
    "seed",
    "Show the seed, or set it.",
    usage="[N|default]",
    aliases=(":seed",),
    complete=lambda chat, rest: (_DEFAULT,),
)
def _seed(chat: Chat, rest: str) -> None:
    if rest:
        _set_option(chat, "seed", rest)
    _show_options(chat, ["seed"])


def _set_option(chat: Chat, name: str, text: str) -> None:
    chat.set_option(name, read_setting(name, text))


def _show_options(chat: Chat, names: list[str]) -> None:
    console.say_rows([(name, _option_in_force(chat, name)) for name in names])


def _option_in_force(chat: Chat, name: str) -> str:
    """An option's value, and whose it is."""
    from qwenchat.settings.sources import toml_value

    origin = chat.origin(name)
    if not origin:
        unset = {
            "seed": tr("random"),
            "max_new_tokens": tr("what the context leaves"),
            "stop": tr("none"),
            "think": tr("(the model decides)"),
            "think_tokens": tr("none"),
        }
        if name in unset:
            return unset[name]
        if chat.backend is None:
            return tr("(the model decides)")
    options = chat.options if chat.backend is None else chat.backend.effective(chat.options)
    value = getattr(options, name)
    if value is None:  # as of a model on a server, which does not say
        return tr("(the model decides)")
    told = f"{value:g}" if isinstance(value, float) else toml_value(value)
    return tr("{value} ({origin})", value=told, origin=origin or tr("model"))


@command(
    "think",
    "Show whether the model thinks before it answers, or let it, or not; show prints what it thought last.",
    usage="[on|off|default|show]",
    complete=lambda chat, rest: ("on", "off", _DEFAULT, "show"),
)
def _think(chat: Chat, rest: str) -> None:
    if rest == "show":
        _show_thought(chat)
        return
    if rest not in ("", "on", "off", _DEFAULT):
        raise UsageError("/think takes on, off, default or show")
    if rest:
        _check_switch(chat, rest)
        chat.set_option("think", None if rest == _DEFAULT else rest == "on")
    chat.say(_thinking_in_force(chat))


def _check_switch(chat: Chat, word: str) -> None:
    """Raises UsageError where the model cannot do what is asked."""
    thinks = "switch" if chat.backend is None else chat.backend.thinks
    if thinks == "never" and word != _DEFAULT:
        raise UsageError("this model does not think before it answers")
    if thinks == "always" and word == "off":
        raise UsageError(
            "this model always thinks before it answers", "/set think_tokens N limits how long it does"
        )


def _thinking_in_force(chat: Chat) -> str:
    """Whether the model thinks, and for how long."""
    if chat.backend is None:
        return tr("whether the model thinks is known once it is loaded")
    if chat.backend.thinks == "never":
        return tr("this model does not think before it answers")
    if chat.backend.thinks == "switch" and chat.options.think is False:
        return tr("the model answers without thinking; /think on changes that")
    most = chat.options.think_tokens
    how = tr("the model thinks before it answers")
    if most is not None:
        how = plural(
            most,
            "the model thinks before it answers, for at most one token",
            "the model thinks before it answers, for at most {count} tokens",
        )
    if chat.backend.thinks == "always":
        return how
    return tr("{message}; {hint}", message=how, hint=tr("/think off turns that off"))


def _show_thought(chat: Chat) -> None:
    thoughts = [node.message.thought for node in chat.conversation.path() if node.message.thought]
    if not thoughts:
        raise UsageError("nothing was thought in this chat")
    for line in thoughts[-1].splitlines():
        chat.say(line or " ")


def _unknown_seed(chat: Chat) -> str:
    """What to say of the seed of a reply that has none: a server draws, and does not say with what."""
    is_remote = chat.backend is not None and chat.backend.call_form == "openai"
    return tr("random") if is_remote and chat.options.temperature != 0 else tr("none was needed")


@command("stats", "Show the speed and the tokens of the last reply.")
def _stats(chat: Chat, rest: str) -> None:
    if chat.last is None:
        raise UsageError("no reply yet")
    for n, end in enumerate(chat.steps[:-1], start=1):
        chat.say(tr("{path}: {reason}", path=tr("step {n}", n=n), reason=stats_text(end)[0]))
    prompt, first, reply = stats_text(chat.last)
    chat.say(prompt)
    chat.say(stats.reread_reason(chat.last))
    chat.say(reply)
    seed = _unknown_seed(chat) if chat.last.seed is None else chat.last.seed
    chat.say(tr("{message}; {hint}", message=first, hint=tr("seed: {seed}", seed=seed)))
