"""Rows of published data, from a file or folder of the user's or from the Hub: CSV, JSONL, zip, Parquet.

Owns reading them and what is told of a row that is none. What columns there must be is the task's.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwenchat.errors import DownloadError, Names, Phrase, QwenchatError, UsageError
from qwenchat.evals.task import Source
from qwenchat.files import json_values
from qwenchat.files.opening import read_file, reason_of
from qwenchat.files.text import decode

MOST_BYTES = 2**28
_MOST_VALUES = 2**16
_KINDS = (".csv", ".jsonl", ".jsonl.gz", ".parquet", ".zip")


@dataclass(frozen=True, slots=True)
class Row:
    """A row.

    Attributes:
        values: by column.
        path, line: where it stands, for people.
        subject: what the name of its file says.
    """

    values: dict[str, Any]
    path: str
    line: int
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, and where they come from."""

    rows: Sequence[Row]
    origin: str
    revision: str = ""


def bad(row: Row, reason: str) -> UsageError:
    """The error for a row that the task cannot use."""
    return UsageError("{path}, line {n}: {reason}", path=row.path, n=row.line, reason=reason)


def text_of(row: Row, column: str) -> str:
    """A column's text.

    Raises:
        UsageError: it is missing, or none.
    """
    value = row.values.get(column)
    if value is None:
        raise bad(row, Phrase("it has no column {column}", column=column))
    if not isinstance(value, str):
        raise bad(row, Phrase("{column} is no text", column=column))
    return value


def need(*modules: str) -> None:
    """Makes sure that packages are there which only some evaluations use.

    Raises:
        QwenchatError: they are not.
    """
    lacking = [name for name in modules if find_spec(name) is None]
    if lacking:
        raise QwenchatError(
            "this needs packages that are not installed: {names}",
            "pip install 'qwenchat[eval]'",
            names=Names(lacking),
        )


def files_or_hub(
    source: Source,
    repository: str,
    file: str,
    *,
    columns: Sequence[str] = (),
    within: str = "",
    suffix: str = "",
) -> Found:
    """The rows of what the user named, or else of a file of the Hub.

    Args:
        columns: names of the columns of a CSV file without a header.
        within: the folder of the wanted files in a zip file.
        suffix: what the names of CSV files end in, behind the subject's.

    Raises:
        UsageError: what the user named cannot be read.
        DownloadError: the Hub does not give it.
    """
    reader = _Reader(tuple(columns), within, suffix)
    if source.path is not None:
        return Found(tuple(reader.rows(source.path)), str(source.path))
    from qwenchat.models.hub import dataset

    source.stage(Phrase("downloading the data"), None)
    try:
        fetched = dataset.fetch(repository, file)
    except DownloadError as error:
        hint = Phrase(
            "get {file} of {repository} by other means and name it: --data FILE",
            file=file,
            repository=repository,
        )
        raise DownloadError(error.message, hint) from error
    return Found(tuple(reader.rows(fetched.path)), f"{repository}/{file}", fetched.revision)


def rows_of(path: Path, **reading: Any) -> tuple[Row, ...]:
    """The rows of a file or folder; ``reading`` as of :func:`files_or_hub`."""
    columns, within = tuple(reading.get("columns", ())), reading.get("within", "")
    return tuple(_Reader(columns, within, reading.get("suffix", "")).rows(path))


def rows_of_bytes(data: bytes, name: str) -> tuple[Row, ...]:
    """The rows of a file's content, by the kind that its name says."""
    return tuple(_Reader((), "", "").content(data, name, name))


def read(path: Path) -> bytes:
    """The bytes of a file of data.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return read_file(path, MOST_BYTES)[0]
    except (OSError, ValueError) as error:
        raise UsageError("{path} cannot be read: {reason}", path=path, reason=reason_of(error)) from error


@dataclass(frozen=True, slots=True)
class _Reader:
    columns: tuple[str, ...]
    within: str
    suffix: str

    def rows(self, path: Path) -> Iterator[Row]:
        if not path.is_dir():
            yield from self.content(read(path), path.name, str(path))
            return
        files = sorted(path.rglob(f"*{self.suffix}.csv")) or sorted(path.rglob("*.jsonl"))
        if not files:
            raise UsageError(
                "{path} has no data in it: {kinds}", path=path, kinds=f"*{self.suffix}.csv, *.jsonl"
            )
        for file in files:
            yield from self.content(read(file), file.name, str(file))

    def content(self, data: bytes, name: str, path: str) -> Iterator[Row]:
        """The rows of a file's content.

        Args:
            name: the file's.
            path: how it is called in an error.
        """
        kind = next((kind for kind in _KINDS if name.lower().endswith(kind)), "")
        if kind == ".csv":
            yield from self._csv(decode(data, path), name, path)
        elif kind == ".jsonl":
            yield from _jsonl(data, path)
        elif kind == ".jsonl.gz":
            yield from _jsonl(_unpacked(data, path), path)
        elif kind == ".zip":
            yield from self._zip(data, path)
        elif kind == ".parquet":
            yield from _parquet(data, path)
        else:
            raise UsageError("{path} is no data, expected {names}", path=path, names=Names(_KINDS))

    def _csv(self, text: str, name: str, path: str) -> Iterator[Row]:
        subject = name.removesuffix(".csv").removesuffix(self.suffix)
        columns: Sequence[str] | None = self.columns or None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for cells in reader:
                if columns is None:
                    columns = cells
                    continue
                if len(cells) != len(columns):
                    reason = Phrase(
                        "it has {count} columns, expected {expected}", count=len(cells), expected=len(columns)
                    )
                    raise bad(Row({}, path, reader.line_num), reason)
                yield Row(dict(zip(columns, cells, strict=True)), path, reader.line_num, subject)
        except csv.Error as error:
            raise bad(
                Row({}, path, reader.line_num), Phrase("it is not valid CSV: {reason}", reason=error)
            ) from error

    def _zip(self, data: bytes, path: str) -> Iterator[Row]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                wanted = sorted(
                    (
                        info
                        for info in archive.infolist()
                        if f"/{self.within}" in f"/{info.filename}"
                        and info.filename.endswith((f"{self.suffix}.csv", f"{self.suffix}.jsonl"))
                    ),
                    key=lambda info: info.filename,
                )
                if sum(info.file_size for info in wanted) > MOST_BYTES or not wanted:
                    raise zipfile.BadZipFile("no such files in it")
                for info in wanted:
                    name = info.filename.rpartition("/")[2]
                    yield from self.content(archive.read(info), name, f"{path}:{info.filename}")
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise UsageError("{path} is no such archive: {reason}", path=path, reason=error) from error


def _jsonl(data: bytes, path: str) -> Iterator[Row]:
    for number, line in enumerate(decode(data, path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json_values.loads(line.encode(), _MOST_VALUES)
        except ValueError as error:
            reason = Phrase("it is not valid JSON: {reason}", reason=error)
            raise bad(Row({}, path, number), reason) from error
        if not isinstance(value, dict):
            raise bad(Row({}, path, number), Phrase("it is no JSON object"))
        yield Row(value, path, number)


def _unpacked(data: bytes, path: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(MOST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError("{path} is no such archive: {reason}", path=path, reason=error) from error
    return unpacked


def _parquet(data: bytes, path: str) -> Iterator[Row]:
    need("pyarrow")
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError("{path} is no such archive: {reason}", path=path, reason=error) from error
    for number, values in enumerate(rows, 1):
        yield Row(values, path, number)
