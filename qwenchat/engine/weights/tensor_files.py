"""The safetensors of a checkpoint folder: which tensors there are, and where they lie.

Finds the files, holds the tensors' shapes and types against what is expected, and reads a tensor or tells
where its bytes are. Knows nothing of the model that they make.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from qwenchat.engine.memory import ran_out_loading
from qwenchat.engine.weights.safetensors_header import Entry, read_header
from qwenchat.errors import CheckpointError, Phrase, quoted, shorten
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import open_file, reason_of

if TYPE_CHECKING:
    from torch import Tensor

    from qwenchat.engine.weights.staging import Stored

FLOATS = ("F16", "BF16", "F32")
"""The dtypes of weights, as the format names them."""
ITEMSIZES = {"F16": 2, "BF16": 2, "F32": 4, "I32": 4}
"""Bytes of a value of those that are read."""
_ARRAYS = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "I32": np.int32}
# Buffers that some savers wrote out; the model makes its own.
_IGNORED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
_LONGEST_NAME = 200


class TensorFiles:
    """The safetensors of a folder, memory-mapped: which tensors there are, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {path.name: _open(path) for path in _find_files(folder)}
        self._places = {name: file for file, handle in self._files.items() for name in handle.keys()}  # noqa: SIM118
        self._known: set[str] = set()
        self._opened: dict[str, Any] = {}
        self._mapped: dict[str, NDArray[np.uint8]] = {}
        self._headers: dict[str, dict[str, Entry]] = {}
        self._check_index()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        """The tensors' names, file by file."""
        return iter(self._places)

    def path(self, name: str) -> Path:
        """The file that holds a tensor; the folder if none does."""
        return self.folder / self._places.get(name, "")

    def check_all_known(self) -> None:
        """Raises CheckpointError for a tensor that :meth:`check` was never asked of.

        A name that nothing reads is a misspelt or foreign one, and the model would not be whole.
        """
        for name, file in self._places.items():
            if name not in self._known and not name.endswith(_IGNORED):
                raise CheckpointError(
                    "{path}: the tensor {name} has no place in this architecture",
                    "the file is damaged or of another model",
                    path=self.folder / file,
                    name=shorten(name),
                )

    def check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        """Raises CheckpointError unless the tensor is there with this shape and one of these dtypes."""
        self._known.add(name)
        if name not in self._places:
            raise CheckpointError(
                "{folder}: the tensor {name} is missing, expected {shape}",
                "the checkpoint is incomplete or of another architecture",
                folder=self.folder,
                name=name,
                shape=_describe(shape, dtypes),
            )
        header = self._files[self._places[name]].get_slice(name)
        found_shape, found_dtype = tuple(header.get_shape()), header.get_dtype()
        if found_shape != shape or found_dtype not in dtypes:
            raise CheckpointError(
                "{path}: the tensor {name} is {found}, expected {shape}",
                path=self.path(name),
                name=name,
                found=_describe(found_shape, (found_dtype,)),
                shape=_describe(shape, dtypes),
            )

    def read(self, name: str) -> Tensor:
        """The tensor, backed by the mapped file."""
        path = self.path(name)
        try:
            if path.name not in self._opened:
                self._opened[path.name] = safe_open(path, framework="pt")
            tensor: Tensor = self._opened[path.name].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            if _is_no_memory(error):
                raise ran_out_loading() from error
            raise unreadable(path, name, str(error)) from error
        return tensor

    def array(self, name: str) -> NDArray[Any]:
        """The tensor as an array, backed by the mapped file; bfloat16, unknown to numpy, as uint16."""
        path, entry = self.path(name), self.entry(name)
        if path.name not in self._mapped:
            self._mapped[path.name] = _map(path, name)
        try:
            array = self._mapped[path.name][entry.begin : entry.end].view(_ARRAYS[entry.dtype])
            return array.reshape(entry.shape)
        except ValueError as error:  # the file has been cut since
            raise _changed(path) from error

    def entry(self, name: str) -> Entry:
        """The description of the tensor in its file's header."""
        path = self.path(name)
        try:
            if path.name not in self._headers:
                self._headers[path.name] = read_header(path)
            # safetensors has checked them when it opened the file.
            entry = self._headers[path.name][name]
            size = ITEMSIZES[entry.dtype]
        except (OSError, ValueError, KeyError) as error:
            raise _changed(path) from error
        for length in entry.shape:
            size *= length
        if size != entry.end - entry.begin:
            raise _changed(path)
        return entry

    def stored(self, name: str) -> Stored:
        """The place of the tensor's bytes in its file."""
        from qwenchat.engine.weights.staging import DTYPES, Stored

        entry = self.entry(name)
        return Stored(name, self.path(name), entry.begin, entry.shape, DTYPES[entry.dtype])

    def _check_index(self) -> None:
        """An index that promises a tensor which its shard does not hold names a damaged folder."""
        index = self.folder / "model.safetensors.index.json"
        if len(self._files) < 2 and not index.exists():
            return
        for name, file in _weight_map(index).items():
            if self._places.get(name) != file:
                raise CheckpointError(
                    "{path}: the tensor {name} is missing, {index} expects it",
                    path=self.folder / file,
                    name=shorten(name),
                    index=index.name,
                )


def _find_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_weight_map(index).values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    # auto-gptq's older releases named the file after the quantisation.
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others
    found = Phrase("{count} of them and no index", count=len(others)) if others else Phrase("none")
    raise CheckpointError(
        "{folder}: expected model.safetensors or model.safetensors.index.json, found {found}",
        "only safetensors are read; pickled weights (.bin, .pt) never are",
        folder=folder,
        found=found,
    )


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            "{index}: weight_map is missing, expected an object of tensor names and files", index=index
        )
    for name, file in weight_map.items():
        if not _is_name(file):
            raise CheckpointError(
                "{index}: {name} is said to be in {file}, expected a .safetensors file name",
                index=index,
                name=quoted(name),
                file=quoted(file),
            )
    return weight_map


def _is_name(file: object) -> bool:
    """True if it is a file's plain name: an index must not lead out of its folder."""
    if not isinstance(file, str) or len(file) > _LONGEST_NAME or not file.isprintable():
        return False
    return Path(file).name == file and file.endswith(".safetensors")


def _open(path: Path) -> safe_open:
    try:
        read_header(path)  # before safetensors makes something of what no model has
        return safe_open(path, framework="np")
    except FileNotFoundError:
        raise CheckpointError(
            "{path} is missing", "the checkpoint is incomplete; fetch it again", path=path
        ) from None
    except OSError as error:
        if _is_no_memory(error):
            raise ran_out_loading() from error
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            "{path} is not a whole safetensors file: {reason}",
            "the file is damaged; fetch it again",
            path=path,
            reason=shorten(str(error), 200),
        ) from error


def _map(path: Path, name: str) -> NDArray[np.uint8]:
    try:
        with open_file(path) as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:
        if _is_no_memory(error):
            raise ran_out_loading() from error
        raise unreadable(path, name, str(error)) from error


def _is_no_memory(error: Exception) -> bool:
    """Whether a file could not be mapped for want of memory: no fault of the file."""
    return isinstance(error, OSError) and error.errno == errno.ENOMEM


def let_go(pieces: Iterable[tuple[int, int]]) -> None:
    """Takes mapped memory that was read out of this process; the files stay in the system's cache.

    Without it a checkpoint counts twice while it is loaded: as pages of its files, and as what they became.

    Args:
        pieces: addresses and bytes.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    libc = _libc()
    for address, nbytes in pieces:
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def unreadable(path: Path, name: str, reason: str) -> CheckpointError:
    """The error for a tensor whose bytes cannot be read."""
    return CheckpointError(
        "{path}: the tensor {name} cannot be read: {reason}", path=path, name=name, reason=reason
    )


def _changed(path: Path) -> CheckpointError:
    return CheckpointError("{path} has changed since it was opened", "try again", path=path)


def _describe(shape: tuple[int, ...], dtypes: tuple[str, ...]) -> str:
    return f"{' or '.join(dtypes)} {list(shape)}"
