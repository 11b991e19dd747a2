"""Turns the GGUF of a Llama into a checkpoint folder.

Owns the files of the folder and what is rounded in them. Knows nothing of where the GGUF came from or
where the folder is put in place; the tensors are those of ``llama``.

The weights become safetensors, rounded to Int8 in the GPTQ layout; the metadata becomes the JSON files
of a Llama and the ``.tiktoken`` vocabulary that our tokenizer reads.

numpy, torch and safetensors are imported where they are used: who only asks whether the folder is
there does not wait for them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from qwenchat.gguf.blocks import Float32Array
    from qwenchat.gguf.file import GGUFFile
    from qwenchat.models.builtin.llama import LlamaShape, Vocabulary

BITS = 8
#: Inputs that share a scale. 576, the built-in model's width, is no multiple of the usual 128.
GROUP_SIZE = 64
VOCABULARY_FILE = "smollm2.tiktoken"

#: Every file of a converted folder.
FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    VOCABULARY_FILE,
    "model.safetensors",
)

_TENSORS_PER_LAYER = 9


def convert(gguf_path: Path, dest: Path, advance: Callable[[float], None] = lambda fraction: None) -> None:
    """Writes an Int8 checkpoint folder in the GPTQ layout from the GGUF of a Llama.

    Embeddings and norms are kept in fp16, the matrices between them in 8 bits with a scale for
    every group of 64 inputs.

    Args:
        gguf_path: the GGUF file.
        dest: an existing, empty folder.
        advance: told the fraction of the weights that is done.

    Raises:
        CheckpointError: the GGUF is damaged or not of the kind that can be converted.
        OSError: a file cannot be written.
    """
    _write_folder(gguf_path, dest, advance, quantized=True)


def convert_float(
    gguf_path: Path, dest: Path, advance: Callable[[float], None] = lambda fraction: None
) -> None:
    """Writes what :func:`convert` does before it rounds: every weight as the GGUF has it, in float32.

    For tests and for figures on what the rounding costs.
    """
    _write_folder(gguf_path, dest, advance, quantized=False)


def _write_folder(gguf_path: Path, dest: Path, advance: Callable[[float], None], *, quantized: bool) -> None:
    from qwenchat.engine.cpu.team import torch_alone
    from qwenchat.gguf.file import read_gguf
    from qwenchat.models.builtin.llama import read_shape, read_vocabulary

    with read_gguf(gguf_path) as gguf:
        shape = read_shape(gguf)
        vocabulary = read_vocabulary(gguf, shape)
        if shape.hidden % GROUP_SIZE or shape.mlp % GROUP_SIZE:
            raise gguf.error(
                "expected widths that {size} divides, not {hidden} and {mlp} in the MLP",
                size=GROUP_SIZE,
                hidden=shape.hidden,
                mlp=shape.mlp,
            )
        _write_json(dest / "config.json", _config(shape, quantized=quantized))
        _write_json(dest / "generation_config.json", _generation_config(vocabulary))
        _write_json(dest / "tokenizer_config.json", _tokenizer_config(vocabulary))
        _write_vocabulary(dest / VOCABULARY_FILE, vocabulary)
        # The matrices are small and come one after the other. Two threads gain nothing on idle cores, and on
        # busy ones they wait for each other: 19 s for the built-in model, against 2.3 s with one.
        with torch_alone():
            tensors = _stored_tensors(gguf, shape, advance, quantized=quantized)
    _write_tensors(dest / "model.safetensors", tensors)
    # safetensors lets only the owner read it; whoever may read its neighbours may read it too.
    (dest / "model.safetensors").chmod((dest / "config.json").stat().st_mode & 0o777)
    advance(1.0)


def _stored_tensors(
    gguf: GGUFFile, shape: LlamaShape, advance: Callable[[float], None], *, quantized: bool
) -> dict[str, Tensor]:
    """Every tensor of the checkpoint's safetensors by name."""
    from qwenchat.models.builtin.llama import llama_tensors

    tensors: dict[str, Tensor] = {}
    for done, (name, weight) in enumerate(llama_tensors(gguf, shape)):
        tensors.update(_stored(name, weight, quantized=quantized))
        advance(min(1.0, done / (shape.layers * _TENSORS_PER_LAYER)))
    return tensors


def _stored(name: str, weight: Float32Array, *, quantized: bool) -> dict[str, Tensor]:
    """The tensors that a weight becomes in the checkpoint."""
    import torch

    from qwenchat.engine.weights.gptq import quantize_rtn

    prefix = name.removesuffix(".weight")
    if quantized and prefix.endswith("_proj"):
        packed = quantize_rtn(torch.from_numpy(weight), bits=BITS, group_size=GROUP_SIZE)
        return {f"{prefix}.{part}": tensor.contiguous() for part, tensor in packed.items()}
    dtype = torch.float16 if quantized else torch.float32
    return {name: torch.from_numpy(weight).to(dtype).contiguous()}


def _config(shape: LlamaShape, *, quantized: bool) -> dict[str, Any]:
    rope_base = int(shape.rope_base) if shape.rope_base.is_integer() else shape.rope_base
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.mlp,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": rope_base,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16" if quantized else "float32",
    }
    if quantized:
        config["quantization_config"] = {
            "bits": BITS,
            "group_size": GROUP_SIZE,
            "desc_act": False,
            "sym": True,
            "quant_method": "gptq",
        }
    return config


def _generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "chat_format": "chatml",
        "eos_token_id": vocabulary.end_id,
        "pad_token_id": vocabulary.padding_id,
        # So small a model is at its best with the likeliest token: sampled at 0.2, as its authors
        # have it, one in five answers about France begins in broken French. The penalty keeps it out
        # of loops; 1.05 already made it talk past the end of its answer.
        "do_sample": False,
        "repetition_penalty": 1.03,
    }


def _tokenizer_config(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "tokenizer_class": "QWenTokenizer",
        "split_pattern": "smollm",
        "added_tokens_decoder": {
            str(token_id): {"content": name, "special": True} for token_id, name in vocabulary.special.items()
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    lines = (
        b"%s %d\n" % (base64.b64encode(token), token_id) for token_id, token in vocabulary.ordinary.items()
    )
    path.write_bytes(b"".join(lines))


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, above all
        raise OSError(f"{path.name}: {error}") from error
