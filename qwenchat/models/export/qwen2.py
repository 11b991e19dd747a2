"""A checkpoint folder of Qwen2: what is in its files, and whether they hold it when they are read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwenchat.engine.config import read_model_config
from qwenchat.files.json_values import read_json
from qwenchat.models.export.source import Matrix, Source, check_same, not_the_same
from qwenchat.models.export.vocabulary import Merges, generation_config, tokenizer_config, tokenizer_json
from qwenchat.models.writing import files as disk
from qwenchat.models.writing.work import Work

_TEXTS = (
    "Hello, world! It's 12:30, don't be late.",
    "  你好，世界！\n\n\t1234567 naïve café ẞ ﬁ e\u0301 🙂👩‍👩‍👧",
    "def f(x):\n    return {'a': x ** 2}  # <|im_end|>\r\n",
)
_QUANTIZATION = ("bits", "group_size", "damp_percent", "desc_act", "static_groups", "sym", "true_sequential")


def write(source: Source, vocabulary: Merges, job: Work, advance: Callable[[int], None]) -> None:
    """Writes what is not there yet.

    Args:
        advance: told how many pieces are done.
    """
    for number, (_, parameters) in enumerate(source.pieces()):
        if number < job.done:
            continue
        tensors: dict[str, Any] = {}
        for matrix in source.matrices(parameters):
            tensors |= _stored(matrix)
        disk.write_tensors(job.piece(number), tensors)
        source.let_go(parameters)
        job.finished(number)
        advance(job.done)
    folder = job.checkpoint
    disk.join(folder)
    quantization = _quantization(source)
    disk.write_json(folder / "config.json", _config(source) | quantization)
    if quantization:
        disk.write_json(folder / "quantize_config.json", quantization["quantization_config"])
    disk.write_json(folder / "tokenizer.json", tokenizer_json(vocabulary), indent=None)
    context = source.config.seq_length
    disk.write_json(folder / "tokenizer_config.json", tokenizer_config(vocabulary, context))
    generation = generation_config(source.tokenizer, source.folder)
    disk.write_json(folder / "generation_config.json", generation)
    disk.copy_files(source.folder, folder, disk.LICENCES)
    disk.write_through(folder)


def bytes_made(source: Source) -> int:
    """The bytes of the weights; twice those of a small model, whose pieces are made one file at the end."""
    stored = source.bytes_stored()
    return 2 * stored if stored <= disk.SINGLE_BYTES else stored


def check(source: Source, folder: Path, advance: Callable[[int], None]) -> None:
    """Reads the folder as any other and compares all of it with the source.

    Args:
        advance: told how many pieces are compared.

    Raises:
        CheckpointError: something is not what was written.
    """
    import torch
    from tokenizers import Tokenizer

    from qwenchat.engine.weights.tensor_files import TensorFiles, let_go

    check_same(source.config, read_model_config(folder), folder / "config.json")
    files = TensorFiles(folder)
    for number, (_, parameters) in enumerate(source.pieces()):
        for matrix in source.matrices(parameters):
            for name, tensor in _stored(matrix).items():
                files.check(name, tuple(tensor.shape), (disk.DTYPES[str(tensor.dtype)],))
                written = files.read(name)
                # Compared as words: a number that is none is equal to itself.
                if not torch.equal(_bits(written), _bits(tensor)):
                    raise not_the_same(files.path(name), name)
                let_go([(written.data_ptr(), written.nbytes)])
        source.let_go(parameters)
        advance(number + 1)
    files.check_all_known()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in _TEXTS:
        if tokenizer.encode(text).ids != source.tokenizer.encode(text, allowed_special="all"):
            raise not_the_same(folder / "tokenizer.json", "the vocabulary")


def _bits(tensor: Any) -> Any:
    import torch

    return tensor.view(torch.int32 if tensor.itemsize == 4 else torch.int16)


def _stored(matrix: Matrix) -> dict[str, Any]:
    """The tensors of a safetensors file that hold a matrix."""
    if matrix.codes is None:
        return {matrix.name: matrix.floats}
    layer = matrix.name.removesuffix(".weight")
    return {
        f"{layer}.{name}": getattr(matrix.codes, name) for name in ("qweight", "qzeros", "scales", "g_idx")
    }


def _config(source: Source) -> dict[str, Any]:
    """``config.json`` of a Qwen2 with these shapes; the context is that up to which the two are equal."""
    config, said = source.config, read_json(source.folder / "config.json")
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "attention_dropout": 0.0,
        "bos_token_id": source.tokenizer.endoftext_id,
        "eos_token_id": source.tokenizer.im_end_id,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.mlp_size,
        "max_position_embeddings": config.seq_length,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": "bfloat16" if said.get("bf16") is True and not config.quant else "float16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }


def _quantization(source: Source) -> dict[str, Any]:
    if source.quant is None:
        return {}
    quant = source.quant
    config = read_json(source.folder / "config.json")
    own = source.folder / "quantize_config.json"
    said = config.get("quantization_config") or (read_json(own) if own.exists() else {})
    kept = {name: said[name] for name in _QUANTIZATION if name in said}
    return {
        "quantization_config": {
            **kept,
            "bits": quant.bits,
            "group_size": quant.group_size,
            "desc_act": quant.act_order,
            "checkpoint_format": "gptq" if quant.zeros_minus_one else "gptq_v2",
            "quant_method": "gptq",
        }
    }
