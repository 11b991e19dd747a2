"""What answers the agent's tools: the model itself, or a command or an address that the user named.

Owns what each tool is called with and what comes back. A command is started without a shell, gets one JSON
object of the arguments on stdin, and its stdout is the value; an address gets the same object by POST.
Neither is anything that a model can choose.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.opening import reason_of

SECONDS = 120
"""What a command or an address may take."""
_MOST_BYTES = 2**20

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "document_qa": ("document", "question"),
    "image_captioner": ("image",),
    "image_qa": ("image", "question"),
    "image_segmenter": ("image", "label"),
    "transcriber": ("audio",),
    "summarizer": ("text",),
    "text_classifier": ("text", "labels"),
    "text_qa": ("text", "question"),
    "text_reader": ("text",),
    "translator": ("text", "src_lang", "tgt_lang"),
    "image_transformer": ("image", "prompt"),
    "text_downloader": ("url",),
    "image_generator": ("prompt",),
    "video_generator": ("prompt", "seconds"),
}
"""The tools' parameters, in their order."""
_OPTIONAL = {"video_generator": {"seconds": 2}}
_ALIASES = {"text": "question", "question": "text"}  # the original's own examples have both for image_qa

_QUESTIONS: Mapping[str, str] = {
    "summarizer": "Summarize this text in a few sentences. Answer with the summary alone.\n\n{text}",
    "text_classifier": (
        "Which of these labels fits the text best: {labels}? Answer with the label alone.\n\n{text}"
    ),
    "text_qa": (
        "Answer the question by the text, as briefly as you can.\n\nText: {text}\n\nQuestion: {question}"
    ),
    "translator": (
        "Translate this text from {src_lang} to {tgt_lang}. Answer with the translation alone.\n\n{text}"
    ),
}
BY_THE_MODEL = tuple(_QUESTIONS)
"""The tools that a language model can be."""

Ask = Callable[[str], str]
Provider = Callable[..., Any]


def providers(ask: Ask, named: Mapping[str, str]) -> dict[str, Provider]:
    """A function for each of the fourteen tools.

    Args:
        ask: answers a question, with the model.
        named: for a tool's name the command or the address that the user named.

    Raises:
        UsageError: a name is none of the tools', or a command cannot be read.
    """
    made: dict[str, Provider] = {}
    for name, where in named.items():
        if name not in PARAMETERS:
            raise UsageError(
                "there is no tool {name}", "the tools: {known}", name=name, known=", ".join(PARAMETERS)
            )
        made[name] = _at(name, where) if where.startswith(("http://", "https://")) else _by(name, where)
    for name in PARAMETERS:
        if name in made:
            continue
        made[name] = _answered(name, ask) if name in _QUESTIONS else _missing(name)
    return made


def arguments_of(name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the tool's own parameter names.

    Raises:
        TypeError: one is missing, too many, or of another name.
    """
    parameters = PARAMETERS[name]
    if len(values) > len(parameters):
        raise TypeError(f"takes {len(parameters)} arguments, {len(values)} were given")
    found = dict(zip(parameters, values, strict=False))
    for key, value in named.items():
        own = key if key in parameters else _ALIASES.get(key, key)
        if own not in parameters:
            raise TypeError(f"has no argument {key}; it has {', '.join(parameters)}")
        if own in found:
            raise TypeError(f"the argument {own} is given twice")
        found[own] = value
    found = _OPTIONAL.get(name, {}) | found
    if missing := [parameter for parameter in parameters if parameter not in found]:
        raise TypeError(f"the argument {missing[0]} is missing")
    return {parameter: found[parameter] for parameter in parameters}


def _answered(name: str, ask: Ask) -> Provider:
    def answer(*values: Any, **named: Any) -> str:
        arguments = arguments_of(name, values, named)
        labels = arguments.get("labels")
        if isinstance(labels, (list, tuple)):
            arguments["labels"] = ", ".join(map(str, labels))
        reply = ask(_QUESTIONS[name].format(**arguments)).strip()
        if isinstance(labels, (list, tuple)):
            return _label(reply, [str(label) for label in labels])
        return reply

    return answer


def _label(reply: str, labels: list[str]) -> str:
    """The label that a reply names: the whole of it, else the first one in it, else the reply."""
    for label in labels:
        if reply.strip(" .\"'").casefold() == label.casefold():
            return label
    places = {reply.casefold().find(label.casefold()): label for label in reversed(labels)}
    places.pop(-1, None)
    return places[min(places)] if places else reply


def _missing(name: str) -> Provider:
    def refuse(*values: Any, **named: Any) -> Any:
        raise QwenchatError("the tool {name} is not there: nothing was named that answers it", name=name)

    return refuse


def _by(name: str, command: str) -> Provider:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError("the command of {name} cannot be read: {reason}", name=name, reason=error) from error
    if not words:
        raise UsageError("the command of {name} is empty", name=name)

    def run(*values: Any, **named: Any) -> str:
        question = json.dumps(arguments_of(name, values, named), default=str)
        try:
            done = subprocess.run(
                words, input=question.encode(), capture_output=True, timeout=SECONDS, check=False
            )
        except OSError as error:
            raise QwenchatError(
                "{command} cannot be started: {reason}", command=Path(words[0]).name, reason=reason_of(error)
            ) from error
        except subprocess.TimeoutExpired as error:
            raise QwenchatError(
                "{command} took more than {seconds} s", command=Path(words[0]).name, seconds=SECONDS
            ) from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise QwenchatError(
                "{command} ended with {code}: {said}",
                command=Path(words[0]).name,
                code=done.returncode,
                said=said[-1] if said else "-",
            )
        return _text(done.stdout)

    return run


def _at(name: str, address: str) -> Provider:
    def post(*values: Any, **named: Any) -> str:
        question = json.dumps(arguments_of(name, values, named), default=str).encode()
        request = urllib.request.Request(  # noqa: S310 - http or https, as the user named it
            address, question, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return _text(answer.read(_MOST_BYTES + 1))
        except (OSError, urllib.error.URLError, ValueError) as error:
            raise QwenchatError(
                "{address} does not answer: {reason}", address=address, reason=error
            ) from error

    return post


def _text(data: bytes) -> str:
    if len(data) > _MOST_BYTES:
        data = data[:_MOST_BYTES]
    return data.decode(errors="replace").strip()
