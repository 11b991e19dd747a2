"""The record of a run: a line of JSON for what it is a run of, then one for each item, as they come.

A run that was ended at any moment goes on: what is there is kept, and half a line at the end is dropped.
Lines of another model, of other data or options are never counted with these: the file is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from qwenchat.errors import Names, Phrase, QwenchatError, UsageError, quoted
from qwenchat.evals.task import RIGHT, Outcome, Record
from qwenchat.files import json_values, locks
from qwenchat.files.opening import read_file, reason_of

_FORMAT = "qwenchat-eval"
_VERSION = 1
_MOST_BYTES = 2**31
_MOST_VALUES = 2**16


class Records:
    """The records of a run in their file, which nobody else may write; to be closed.

    Args:
        path: of the file; its folder is made.
        key: what it is a run of, as plain JSON by name.
        fresh: whether what is there is thrown away.

    Attributes:
        path: of the file.
        done: the records by the item's id.

    Raises:
        UsageError: another program writes it, or it is of another run.
        QwenchatError: it cannot be read or written.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.done: dict[str, Record] = {}
        self._file: IO[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = locks.acquire(path.with_name(f".{path.name}.lock"))
        except locks.LockHeld:
            raise UsageError("another qwenchat is writing {path}", path=path) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            whole = 0 if fresh else self._read(key)
            self._open(whole, key)
        except BaseException:
            self.close()
            raise

    def add(self, record: Record, outcome: Outcome | None) -> None:
        """Writes what became of an item, at once.

        Args:
            outcome: None where there is a problem instead.
        """
        line: dict[str, Any] = {"id": record.id}
        if record.group:
            line["group"] = record.group
        if outcome is not None:
            line |= {"prompt": outcome.prompt, "reply": outcome.reply, "extracted": outcome.extracted}
        if set(record.scores) == {RIGHT}:
            line["right"] = record.scores[RIGHT] == 1
        else:
            line["scores"] = dict(record.scores)
        if record.problem:
            line["problem"] = record.problem
        tokens = [record.prompt_tokens, record.reused_tokens, record.completion_tokens]
        line |= {"seconds": round(record.seconds, 3), "tokens": tokens}
        self._write(line)
        self.done[record.id] = record

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _open(self, whole: int, key: Mapping[str, Any]) -> None:
        """Opens the file behind its last whole line."""
        try:
            self._file = self.path.open("r+b" if whole else "wb", buffering=0)
            if not whole:
                self._write({"format": _FORMAT, "version": _VERSION, **key})
            self._file.truncate(whole or None)
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._unwritable(error) from error

    def _read(self, key: Mapping[str, Any]) -> int:
        """Reads what is there; returns how many bytes of it are whole lines."""
        try:
            data = read_file(self.path, _MOST_BYTES)[0]
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise QwenchatError(
                "{path} cannot be read: {reason}", path=self.path, reason=reason_of(error)
            ) from error
        lines = data.split(b"\n")
        if not data or (len(lines) == 1 and _is_head_cut(data)):
            return 0
        self._check_head(lines[0], key)
        for number, line in enumerate(lines[1:-1], 2):
            record = _record(line)
            if record is None:
                raise QwenchatError(
                    "{path}, line {n}: it is damaged",
                    "--fresh begins anew; --out FOLDER keeps this and writes elsewhere",
                    path=self.path,
                    n=number,
                )
            self.done[record.id] = record
        return len(data) - len(lines[-1])

    def _check_head(self, line: bytes, key: Mapping[str, Any]) -> None:
        head: Any = None
        with suppress(ValueError):
            head = json_values.loads(line, _MOST_VALUES)
        if not isinstance(head, dict) or head.get("format") != _FORMAT or head.get("version") != _VERSION:
            raise UsageError(
                "{path} is no record of an evaluation", "--out FOLDER writes elsewhere", path=self.path
            )
        told = json.loads(json.dumps(key))
        others = [
            Phrase(
                "{name} {was}, now {wanted}", name=name, was=_short(head.get(name)), wanted=_short(told[name])
            )
            for name in told
            if head.get(name) != told[name]
        ]
        if others:
            raise UsageError(
                "{path} is of another run: {names}",
                "--fresh begins anew; --out FOLDER keeps this and writes elsewhere",
                path=self.path,
                names=Names(others),
            )

    def _unwritable(self, error: OSError) -> QwenchatError:
        return QwenchatError("{path} cannot be written: {reason}", path=self.path, reason=reason_of(error))


def _is_head_cut(data: bytes) -> bool:
    """Whether a file holds the beginning of its first line, and nothing else."""
    begin = json.dumps({"format": _FORMAT})[:-1].encode()
    return data[: len(begin)] == begin[: len(data)]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text[:12]}…" if len(text) == 64 else quoted(text, 80).strip("'")


def _record(line: bytes) -> Record | None:
    """A record of its line; None if it is none."""
    try:
        value = json_values.loads(line, _MOST_VALUES)
        scores = value["scores"] if "scores" in value else {RIGHT: float(value["right"])}
        prompt, reused, completion = map(int, value["tokens"])
        return Record(
            str(value["id"]),
            str(value.get("group", "")),
            {str(name): float(score) for name, score in scores.items()},
            str(value.get("problem", "")),
            float(value["seconds"]),
            prompt,
            reused,
            completion,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
