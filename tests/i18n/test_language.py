"""The two languages: every text that is said has its Chinese, with the same fields."""

from __future__ import annotations

import ast
import errno
import os
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from qwenchat import errors
from qwenchat.cli import app
from qwenchat.cli import help as cli_help
from qwenchat.files.opening import reason_of
from qwenchat.i18n import language
from qwenchat.i18n.chinese import CHINESE
from qwenchat.i18n.language import tr
from qwenchat.models.builtin import demo, wheel
from qwenchat.settings import sources
from qwenchat.settings.file import language_of_config
from qwenchat.settings.schema import KEYS, allowed
from qwenchat.terminal.commands import registry
from tests.callers import PACKAGE, name_of

STAGES = (
    "starting",
    "importing torch",
    "loading weights",
    "preparing kernels",
    "compiling kernels, once",
    "waiting for another qwenchat",
    "downloading the built-in model",
    "verifying",
    "unpacking",
    "converting",
)
"""Of loading a model; they are translated where they are shown."""

OTHERS = (
    "default",
    *("plain torch", "plain torch with oneDNN", "Triton, CUDA graph", "CUDA C++, CUDA graph"),
    "Invalid statement",
    "Invalid value",
    "Expected '=' after a key in a key/value pair",
    "Expected newline or end of document after a statement",
    "Expected ']' at the end of a table declaration",
    "Invalid initial character for a key part",
    "Cannot overwrite a value",
    "Unclosed array",
    "Unclosed inline table",
    "Unterminated string",
    "Unescaped '\\' in a string",
    *("Name or service not known", "Temporary failure in name resolution"),
)
"""What is said by the engine, the TOML parser and the resolver of names, and translated where it is told."""

SYSTEM = {
    os.strerror(number)
    for number in (
        *(errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH),
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EFBIG),
        *(errno.ELOOP, errno.EMFILE, errno.EIO, errno.EINVAL, errno.ENOMEM, errno.ENOEXEC),
    )
}
"""What the system says of files; it is translated by ``files.reason_of``."""


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    language.use("en")


def said_in_code() -> set[str]:
    """The texts that are looked up: of tr(), phrases, errors and reasons, and the larger of each plural."""
    texts = given_as_templates() | returned_as_reasons()
    for call in calls_of("tr", "Phrase"):
        text = call.args[0]
        if isinstance(text, ast.Constant):
            texts.add(text.value)
        else:  # a text that is declared elsewhere or another's; those are collected below
            assert not isinstance(text, ast.JoinedStr), ast.unparse(call)
    for call in calls_of(*errors_of_the_family()):
        for text in (
            *call.args[:2],
            *(word.value for word in call.keywords if word.arg in ("hint", "in_chat")),
        ):
            for branch in (text.body, text.orelse) if isinstance(text, ast.IfExp) else (text,):
                assert not isinstance(branch, ast.JoinedStr), f"a template and values: {ast.unparse(call)}"
                if isinstance(branch, ast.Constant) and branch.value:
                    texts.add(branch.value)
    return texts | {many for _, many in plurals_in_code()}


def given_as_templates() -> set[str]:
    """The texts given for a parameter that is a ``Template``: phrases are made of them if need be."""
    takers: dict[str, list[tuple[int, str]]] = {}
    for function in functions():
        parameters = [p for p in function.args.args if p.arg != "self"]
        for place, parameter in enumerate(parameters):
            if parameter.annotation and ast.unparse(parameter.annotation) == "Template":
                takers.setdefault(function.name, []).append((place, parameter.arg))
    texts = set()
    for call in calls_of(*takers):
        for place, name in takers[name_of(call)]:
            given = [*call.args[place : place + 1], *(w.value for w in call.keywords if w.arg == name)]
            for text in given:
                assert not isinstance(text, ast.JoinedStr), f"a template and values: {ast.unparse(call)}"
                if isinstance(text, ast.Constant):
                    texts.add(text.value)
    return texts


def returned_as_reasons() -> set[str]:
    """The texts that a function returns as the reason of something; those with values are phrases."""
    texts = set()
    for function in functions():
        if re.search("reason|trouble|problem", function.name):
            for text in (node.value for node in ast.walk(function) if isinstance(node, ast.Return)):
                assert not isinstance(text, ast.JoinedStr), f"a phrase: {function.name}, {ast.unparse(text)}"
                if isinstance(text, ast.Constant) and text.value:
                    texts.add(text.value)
    return texts


def functions() -> Iterator[ast.FunctionDef]:
    return (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def plurals_in_code() -> set[tuple[str, str]]:
    """What is said of one thing and of several."""
    counted = [call.args[-2:] for call in calls_of("plural", "of_number")]
    return {(ast.literal_eval(one), ast.literal_eval(many)) for one, many in counted if is_text(one)}


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def errors_of_the_family() -> set[str]:
    """The names of the family's errors and of those that modules derive for their own ends."""
    names = {name for name, kind in vars(errors).items() if is_error(kind)}
    classes = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while more := {c.name for c in classes if {getattr(b, "id", "") for b in c.bases} & names} - names:
        names |= more
    return names


def is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, errors.QwenchatError)


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]


def calls_of(*names: str) -> Iterator[ast.Call]:
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node) in names:
                yield node


def said() -> set[str]:
    """Everything that can be said."""
    commands = registry.commands().values()
    return {
        *said_in_code(),
        *STAGES,
        *SYSTEM,
        *OTHERS,
        *(command.help for command in commands),
        *(command.group for command in commands),
        *(allowed(key) for key in KEYS),
        *(known.unset for known in KEYS.values() if known.unset),
        *(known.description for known in KEYS.values()),
        sources._EXAMPLE_HEAD,
        *cli_help.texts(typer.main.get_command(app.app)),
        "Show this message and exit.",  # of --help, which each command gets on its own
    }


def fields_of(template: str) -> set[str]:
    return {f"{name}!{conversion}" for _, name, _, conversion in string.Formatter().parse(template) if name}


def test_every_text_has_its_chinese_and_no_chinese_is_left_over() -> None:
    language.use("en")
    assert sorted(said() - set(CHINESE)) == []
    assert sorted(set(CHINESE) - said()) == []


def test_a_translation_has_the_same_fields() -> None:
    assert [text for text in CHINESE if fields_of(CHINESE[text]) != fields_of(text)] == []


def test_a_translation_is_chinese_and_names_the_same_commands_and_flags() -> None:
    named = re.compile(r"(?<![\w/}])(?:/[a-z][a-z-]+|--[a-z-]+)")
    for text, chinese in CHINESE.items():
        assert re.search("[\u4e00-\u9fff；：，（、]", chinese), text
        assert [name for name in named.findall(text) if name not in chinese] == [], text


def test_both_numbers_of_a_text_have_the_same_fields() -> None:
    for one, many in plurals_in_code():
        assert fields_of(many) - fields_of(one) <= {"count!None"}
        assert fields_of(one) <= fields_of(many)


def test_what_is_counted_is_told_in_the_right_number() -> None:
    things = "lines|turns|questions|sessions|files|layers|blocks|characters"
    several = re.compile(rf"\{{(?!limit)\w+\}} (?:\w+ )?(?:{things})\b")
    # Only what is long is folded.
    alone = {text for text in said() if "[paste" not in text} - {many for _, many in plurals_in_code()}
    assert sorted(text for text in alone if several.search(text)) == []


def test_one_thing_is_told_apart_from_several() -> None:
    def told(count: int) -> str:
        return language.plural(count, "{title!r} (one turn)", "{title!r} ({count} turns)", title="{a}")

    assert [told(n) for n in (0, 1, 1234)] == ["'{a}' (0 turns)", "'{a}' (one turn)", "'{a}' (1,234 turns)"]
    language.use("zh")
    assert told(1) == "'{a}'（1 轮）"


def test_every_stage_of_loading_is_known() -> None:
    sources = "".join(Path(str(module.__file__)).read_text() for module in (demo, wheel))
    for stage in re.findall(r'(?:report|progress)\("([a-z ]+)"', sources):
        assert stage in STAGES


def test_a_field_is_filled_in_as_it_is() -> None:
    assert language.tr("unknown command {word}", word="/{0} {word}") == "unknown command /{0} {word}"


def test_no_space_stands_between_chinese_and_a_field_that_is_chinese() -> None:
    language.use("zh")
    assert tr("{path} is binary", path="标准输入") == "标准输入是二进制数据"
    assert tr("{path} is binary", path="a.bin") == "a.bin 是二进制数据"
    command = tr("qwenchat models pull {name} downloads it", name="千问/对话")
    assert command == "可用 qwenchat models pull 千问/对话 下载"  # around what is to be typed they stay
    assert tr("delete {session}?", session="'a  b'（1 轮）") == "删除 'a  b'（1 轮）？"


def test_what_the_system_says_is_said_in_chinese() -> None:
    gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.txt")
    assert reason_of(gone) == "No such file or directory"
    language.use("zh")
    assert tr(reason_of(gone)) == "没有该文件或文件夹"
    assert tr(reason_of(OSError(errno.EIO, "{strange}"))) == "{strange}"


def test_yes_is_yes_in_both_languages() -> None:
    assert all(language.is_yes(answer) for answer in ("y", " YES\n", "是"))
    assert not any(language.is_yes(answer) for answer in ("", "n", "no", "否", "yesterday"))


def test_reasons_of_the_system_are_told_in_one_way() -> None:
    raw = {path.name for path in PACKAGE.rglob("*.py") if "error.strerror" in path.read_text()}
    assert raw == {"opening.py"}


def test_the_language_follows_the_locale() -> None:
    assert language.of_locale({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert language.of_locale({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}) == "en"
    assert language.of_locale({"LC_MESSAGES": "zh_TW"}) == "zh"
    assert language.of_locale({}) == "en"


@pytest.mark.parametrize(
    ("arguments", "variable", "file", "expected"),
    [
        ([], "", 'language = "zh"', "zh"),
        ([], "", '\ufeff"language" = "zh"', "zh"),
        (["--language", "en"], "", 'language = "zh"', "en"),
        ([], "en", 'language = "zh"', "en"),
        ([], "auto", 'language = "zh"', "en"),
        ([], "", 'language = "auto"', "en"),
        ([], "", '# language = "zh"', "en"),
        ([], "", 'language = "zh"\ntheme = ', "en"),  # no TOML: told where the settings are read
        ([], "", 'system = """\nlanguage = "zh"\n"""', "en"),
        ([], "", "[language]\nzh = 1", "en"),
        ([], "", None, "en"),
    ],
)
def test_help_and_the_parser_speak_the_language_of_the_config_file(
    arguments: list[str], variable: str, file: str | None, expected: str, tmp_path: Path
) -> None:
    if file is not None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "config.toml").write_text(file, encoding="utf-8")
    environ = {"QWENCHAT_HOME": str(tmp_path), "QWENCHAT_LANGUAGE": variable, "LANG": "C"}
    before = language.before_settings(arguments, lambda: language_of_config(environ), environ)
    assert before == expected


def test_chinese_is_spoken_when_asked_for() -> None:
    language.use("zh")
    assert language.tr("there is no turn {n}", n=3) == CHINESE["there is no turn {n}"].format(n=3)
