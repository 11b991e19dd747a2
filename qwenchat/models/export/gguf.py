"""A GGUF file of the architecture "qwen2": what is in it, and whether it holds it when it is read again.

Names, keys and the order of tensors are those of llama.cpp (``gguf-py/gguf/constants.py``). Matrices are Q8_0
or F16, vectors F32. Codes of GPTQ move over as they are where a scale holds for 32 inputs in a row and a code
less its zero point fits 8 bits; others are made numbers and rounded anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.gguf_config import stored_name
from qwenchat.errors import CheckpointError
from qwenchat.gguf import writing
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.writing import GROUP, Plan, Value, kind_named
from qwenchat.models.export.source import Matrix, Source, not_the_same
from qwenchat.models.export.vocabulary import CHAT_TEMPLATE, Merges
from qwenchat.models.writing.work import Work

if TYPE_CHECKING:
    from qwenchat.engine.weights.gptq import Codes

TYPES = {"q8_0": "Q8_0", "f16": "F16"}
"""What matrices can be written as, as ggml calls it."""
FILE = "model.gguf"
"""The file's name until all is in it."""

_FILE_TYPES = {"q8_0": 7, "f16": 1}  # ggml's LLAMA_FTYPE_MOSTLY_...
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def write(
    source: Source, vocabulary: Merges, type_name: str, job: Work, advance: Callable[[int], None]
) -> None:
    """Writes what is not there yet, piece after piece, into one file.

    Args:
        type_name: one of ``TYPES``.
        advance: told how many pieces are done.
    """
    pieces = list(source.pieces())
    plans = [list(_plans(source, parameters, type_name)) for _, parameters in pieces]
    head = writing.head(_metadata(source, vocabulary, type_name), [plan for piece in plans for plan in piece])
    path = job.checkpoint / FILE
    begin = len(head) + sum(plan.size + plan.padding for piece in plans[: job.done] for plan in piece)
    with path.open("r+b" if job.done else "wb") as file:
        if not job.done:
            file.write(head)
        file.truncate(begin)  # what a run left that was stopped within a piece
        file.seek(begin)
        for number, (_, parameters) in enumerate(pieces[job.done :], job.done):
            for plan, matrix in zip(plans[number], source.matrices(parameters), strict=True):
                file.write(_data(matrix, plan).data)
                file.write(bytes(plan.padding))
            file.flush()
            os.fsync(file.fileno())
            source.let_go(parameters)
            job.finished(number)
            advance(job.done)


def check(source: Source, path: Path, type_name: str, advance: Callable[[int], None]) -> None:
    """Reads the file as any other and compares all of it with the source.

    Args:
        advance: told how many pieces are compared.

    Raises:
        CheckpointError: something is not what was written.
    """
    with read_gguf(path) as file:
        known = set()
        for number, (_, parameters) in enumerate(source.pieces()):
            for plan, matrix in zip(
                _plans(source, parameters, type_name), source.matrices(parameters), strict=True
            ):
                known.add(plan.name)
                found = file.tensors.get(plan.name)
                if (
                    found is None
                    or (found.shape, found.kind) != (plan.shape, plan.kind)
                    or not np.array_equal(found.data.reshape(-1), _data(matrix, plan).reshape(-1))
                ):
                    raise not_the_same(path, plan.name)
            source.let_go(parameters)
            advance(number + 1)
        if known != file.tensors.keys():
            raise not_the_same(path, "tensors")


def rounded_anew(source: Source) -> bool:
    """Whether codes of the source cannot move over as they are."""
    for _, parameters in source.pieces():
        coded = [parameter for parameter in parameters if parameter.gptq]
        if coded:
            return not all(
                _moves_over(matrix.codes) for matrix in source.matrices(coded) if matrix.codes is not None
            )
    return False


def bytes_made(source: Source, type_name: str) -> int:
    """The bytes of all tensors together."""
    return sum(
        plan.size + plan.padding
        for _, parameters in source.pieces()
        for plan in _plans(source, parameters, type_name)
    )


def _plans(source: Source, parameters: Any, type_name: str) -> Iterator[Plan]:
    for matrix in source.matrices(parameters):
        kind = kind_named(TYPES[type_name] if len(matrix.shape) > 1 else "F32")
        if matrix.shape[-1] % kind.elements:
            raise CheckpointError(
                "{folder}: matrices of {columns} inputs cannot be {kind}",
                "give --type f16",
                folder=source.folder,
                columns=matrix.shape[-1],
                kind=kind.name,
            )
        yield Plan(stored_name(matrix.name), matrix.shape, kind)


def _data(matrix: Matrix, plan: Plan) -> npt.NDArray[np.uint8]:
    """A tensor's bytes [rows, bytes of a row], or [1, bytes] of a vector."""
    if plan.kind.name == "Q8_0" and matrix.codes is not None and _moves_over(matrix.codes):
        return _moved(matrix.codes)
    if plan.kind.name == "F16" and matrix.floats is not None and matrix.floats.itemsize == 2:
        return _finite(matrix.floats.half().numpy(), matrix.name).view(np.uint8)
    numbers = _numbers(matrix)
    if plan.kind.name == "F32":
        return numbers.view(np.uint8)
    if plan.kind.name == "F16":
        return _finite(numbers.astype(np.float16), matrix.name).view(np.uint8)
    return writing.q8_0(_finite(numbers, matrix.name))


def _numbers(matrix: Matrix) -> npt.NDArray[np.float32]:
    from qwenchat.engine.weights import gptq

    if matrix.codes is not None:
        return np.ascontiguousarray(gptq.dequantize(matrix.codes).numpy())
    assert matrix.floats is not None
    return np.ascontiguousarray(matrix.floats.float().numpy())


def _finite(numbers: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if not np.isfinite(numbers).all():
        raise CheckpointError(
            "the tensor {name} is not finite, or too large for float16",
            "the checkpoint is damaged, or its training went astray",
            name=name,
        )
    return numbers


def _moves_over(codes: Codes) -> bool:
    """Whether the codes are Q8_0's once their zero points are taken off."""
    if codes.g_idx is not None:
        groups = codes.g_idx.numpy().reshape(-1, GROUP)
        if codes.inputs % GROUP or (groups != groups[:, :1]).any():
            return False
    elif codes.group % GROUP:
        return False
    if str(codes.scales.dtype) != "torch.float16":
        return False
    zeros = codes.zeros()
    least, most = int(zeros.min()), int(zeros.max())
    return -most >= -128 and 2**codes.bits - 1 - least <= 127


def _moved(codes: Codes) -> npt.NDArray[np.uint8]:
    from qwenchat.engine.weights import gptq

    inputs, outputs = codes.inputs, codes.outputs
    if codes.g_idx is not None:
        of_block = codes.g_idx.numpy()[::GROUP]
    else:
        of_block = np.arange(0, inputs, GROUP) // codes.group
    numbers = gptq.unpack_words(codes.qweight, codes.bits).numpy().reshape(-1, GROUP, outputs)
    zeros = codes.zeros().numpy()[of_block][:, None]  # [blocks, 1, out]
    centred = (numbers.astype(np.int16) - zeros).astype(np.int8)
    scales = codes.scales.numpy()[of_block]  # [blocks, out]
    return writing.q8_0_of_codes(
        np.ascontiguousarray(centred.reshape(inputs, outputs).T), np.ascontiguousarray(scales.T)
    )


def _metadata(source: Source, vocabulary: Merges, type_name: str) -> dict[str, Value]:
    config, tokenizer = source.config, source.tokenizer
    words, types = _tokens(vocabulary, config)
    return {
        "general.architecture": "qwen2",
        "general.name": source.folder.resolve().name,
        "general.file_type": _FILE_TYPES[type_name],
        "general.quantization_version": 2,
        "qwen2.context_length": config.seq_length,
        "qwen2.embedding_length": config.hidden_size,
        "qwen2.block_count": config.num_layers,
        "qwen2.feed_forward_length": config.mlp_size,
        "qwen2.attention.head_count": config.num_heads,
        "qwen2.attention.head_count_kv": config.num_key_value_heads,
        "qwen2.attention.layer_norm_rms_epsilon": config.norm_eps,
        "qwen2.rope.freq_base": config.rope_base,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in vocabulary.merges],
        "tokenizer.ggml.bos_token_id": tokenizer.endoftext_id,
        "tokenizer.ggml.eos_token_id": tokenizer.im_end_id,
        "tokenizer.ggml.padding_token_id": tokenizer.endoftext_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _tokens(vocabulary: Merges, config: ModelConfig) -> tuple[list[str], list[int]]:
    """A token and its type for each row of the embedding."""
    words, types = [], []
    for token_id in range(config.vocab_size):
        if token_id in vocabulary.words:
            words.append(vocabulary.words[token_id])
            types.append(_NORMAL)
        elif token_id in vocabulary.specials:
            words.append(vocabulary.specials[token_id])
            types.append(_CONTROL)
        else:
            words.append(f"[PAD{token_id}]")
            types.append(_UNUSED)
    return words, types
