"""The parser of the command line: its errors in our words, with what was probably meant.

Owns what is said where a command line makes no sense: which word is unknown, what a value must be. Typer
parses. The layout of the help is ``cli/help.py``'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from qwenchat.cli.plain_values import read_plainly
from qwenchat.errors import Phrase, UsageError, quoted, shorten
from qwenchat.i18n.language import tr

# What other programs call it. The words of a group's own commands need not be here.
_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "qwenchat": {
        "download": "models pull",
        "fetch": "models pull",
        "history": "sessions list",
        "ls": "sessions list",
        "ps": "sessions list",
        "quantise": "quantize",
        "rm": "sessions delete",
        "settings": "config show",
    },
    "qwenchat sessions": {
        "cat": "show",
        "continue": "resume",
        "copy": "fork",
        "cp": "fork",
        "find": "search",
        "grep": "search",
        "ls": "list",
        "mv": "rename",
        "open": "resume",
        "remove": "delete",
        "rm": "delete",
    },
    "qwenchat models": {
        "delete": "remove",
        "download": "pull",
        "fetch": "pull",
        "get": "pull",
        "info": "show",
        "ls": "list",
        "rm": "remove",
        "verify": "check",
    },
    "qwenchat config": {"create": "init", "get": "show", "list": "show", "ls": "show"},
}
_SHORT = 3  # letters: what is near a name as short may as well begin a question
_CHAT = ("chat", "run")


@dataclass(frozen=True)
class Later:
    """A command, or a group of them, whose module is imported when it is asked for.

    Args:
        place: the module, a colon, and the name of the function or the :class:`App` in it.
        about: what it does, as its help begins; for the list of commands.
    """

    place: str
    about: str

    def build(self, name: str) -> Any:
        """Imports it and makes it a command of this name, as Typer runs it."""
        from importlib import import_module

        from typer.main import get_group

        module, _, attribute = self.place.partition(":")
        found, around = getattr(import_module(module), attribute), App()
        if isinstance(found, App):
            around.add_typer(found, name=name)
        else:
            around.command(name)(found)
        return get_group(around).commands[name]


class Commands(Mapping[str, Any]):
    """The commands of a group by name; one that is to come :class:`Later` is made when it is looked up."""

    def __init__(self, made: Mapping[str, Any], later: Mapping[str, Later]) -> None:
        self._made, self._later = dict(made), later

    def __getitem__(self, name: str) -> Any:
        if name not in self._made and name in self._later:
            self._made[name] = self._later[name].build(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._later, *self._made)))

    def __len__(self) -> int:
        return len(self._later.keys() | self._made.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._later or name in self._made

    def about(self, name: str) -> str:
        """What a command does, as its help begins; nothing is imported to know."""
        if name in self._later:
            return self._later[name].about
        from qwenchat.cli.help import paragraphs

        return next(iter(paragraphs(self._made[name])), "")


class Command(TyperCommand):
    """A command whose help and errors are ours."""

    allow_extra_args = True  # so that what is too much comes back

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes the words after the command's name."""
        read_plainly(self.get_params(ctx))
        with _told(ctx):
            extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            words = shorten(" ".join(extra))
            message = tr("{command}: unexpected argument {words}", words=words, command=ctx.command_path)
            raise UsageError(message, _see_help(ctx))
        return extra

    def get_help(self, ctx: Any) -> str:
        """The help of this command, for ``--help``."""
        from qwenchat.cli.help import help_of

        return help_of(self, ctx)


class Group(TyperGroup):
    """A group of commands whose help and errors are ours."""

    later: ClassVar[Mapping[str, Later]] = {}

    def __init__(self, *, commands: Mapping[str, Any], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands(commands, self.later)

    def get_help(self, ctx: Any) -> str:
        """The help of this command, for ``--help``."""
        from qwenchat.cli.help import help_of

        return help_of(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes the words after the group's name."""
        read_plainly(self.get_params(ctx))
        with _told(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that the first word names."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise self._no_command(ctx, args)
        return super().resolve_command(ctx, args)

    def _no_command(self, ctx: Any, args: list[str]) -> UsageError:
        word, path = args[0], ctx.command_path
        meant = [f"{path} {name}" for name in self._meant(path, word)]
        if meant:
            hint = tr("did you mean {name}?", name=tr(" or ").join(meant))
        elif ctx.parent is not None:
            hint = _see_help(ctx)
        elif word in _CHAT:
            hint = tr("qwenchat alone starts a chat; -m NAME chooses the model")
        else:
            import shlex

            said = shlex.join([" ".join(args)]) if len(args) > 1 or " " in word else shlex.quote(word)
            hint = tr(
                "use qwenchat ask {text} to ask it, or see {help}",
                text=shorten(said),
                help=f"{path} --help",
            )
        return UsageError(Phrase("unknown command {word}", word=shorten(word)), hint)

    def _meant(self, path: str, word: str) -> Iterable[str]:
        """The commands that a word is likely to mean."""
        elsewhere = _ELSEWHERE.get(path, {})
        if word in elsewhere:
            return [elsewhere[word]]
        groups = {name: each for name, each in self.commands.items() if isinstance(each, Group)}
        if below := [f"{name} {word}" for name, each in groups.items() if word in each.commands]:
            return below
        names = [*(name for name in elsewhere if len(name) > _SHORT), *self.commands]
        close = difflib.get_close_matches(word, names, n=1)
        return [elsewhere.get(name, name) for name in close]


class App(typer.Typer):
    """A group of commands, all of which are ours."""

    def __init__(self, *, cls: type[Group] = Group, **settings: Any) -> None:
        # Plain help: Rich would cost half of its time budget.
        super().__init__(cls=cls, rich_markup_mode=None, invoke_without_command=True, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Declares a command."""
        return super().command(name, cls=Command, **settings)


# --- what is said ----------------------------------------------------------------------------------


@contextmanager
def _told(ctx: Any) -> Iterator[None]:
    """Lets what Typer finds wrong be told in our words."""
    try:
        yield
    except typer.TyperException as error:
        raise _in_our_words(error, ctx) from error


def _in_our_words(error: Any, ctx: Any) -> UsageError:
    """Words Typer's error as ours. Typer's errors are private; their names tell them apart."""
    kind = type(error).__name__
    if kind == "NoSuchOption":
        message = tr("unknown option {name}", name=shorten(error.option_name))
        if error.possibilities:
            return UsageError(message, Phrase("did you mean {name}?", name=error.possibilities[0]))
        return UsageError(message, _see_help(ctx))
    if kind == "BadOptionUsage":
        message = (
            tr("{option} takes no value", option=error.option_name)
            if _is_switch(ctx, error.option_name)
            else tr("{option} needs a value", option=error.option_name)
        )
        return UsageError(message, _see_help(ctx))
    if kind == "MissingParameter":
        from qwenchat.cli.help import usage_of

        usage = usage_of(ctx.command, ctx).replace(f" {tr('[OPTIONS]')}", "")
        return UsageError("{name} is missing", "usage: {usage}", name=error.param.metavar, usage=usage)
    if kind == "BadParameter" and error.param is not None:
        given = _given(error)
        name = error.param.metavar if error.param.param_type_name == "argument" else error.param.opts[0]
        setting = f"{name} {given}" if given else name
        return UsageError("{setting}: expected {what}", setting=setting, what=_expected(error.param))
    return UsageError(error.format_message(), _see_help(ctx))


def _see_help(ctx: Any) -> str:
    return tr("see {command}", command=f"{ctx.command_path} --help")


def _is_switch(ctx: Any, option: str) -> bool:
    options = [param for param in ctx.command.params if param.param_type_name == "option"]
    return any(option in (*param.opts, *param.secondary_opts) and param.is_flag for param in options)


def _given(error: Any) -> str:
    """The value that was refused, or nothing if it is not known."""
    errors = getattr(error.__cause__, "errors", None)
    if errors is None:
        return ""
    value = errors(include_url=False)[0]["input"]
    return shorten(value) if isinstance(value, str) and value.isprintable() else quoted(value)


def _expected(param: Any) -> str:
    """The values expected: as the setting of that name says, or as type and bounds do."""
    from qwenchat.settings.schema import KEYS, allowed

    if param.name in KEYS:
        return allowed(param.name)
    kind, least = param.type_descriptor.annotation, getattr(param, "min", None)
    most = getattr(param, "max", None)
    if kind is int and least is not None and most is not None:
        return tr("a whole number from {least} to {most}", least=least, most=most)
    if kind is int:
        return (
            tr("a whole number, {least} or more", least=least) if least is not None else tr("a whole number")
        )
    if kind is float:
        return tr("a number, {least} or more", least=least) if least is not None else tr("a number")
    return tr("text in UTF-8")
