"""The checkpoint that is exported: whether it can be, and its tensors by Qwen2's names, a layer at a time.

Owns what is refused of a source, and what is said of what the target cannot do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig, QuantConfig, read_model_config
from qwenchat.engine.weights.parameters import Parameter, as_stored, check_layer_count, list_parameters
from qwenchat.engine.weights.tensor_files import TensorFiles
from qwenchat.errors import CheckpointError, Phrase
from qwenchat.files.opening import reason_of
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.tokenizer import QwenTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from qwenchat.engine.weights.gptq import Codes

_TARGET = ARCHITECTURES["qwen2"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One tensor of the target, before it has a form.

    Attributes:
        name: Qwen2's, with what it is: "model.layers.0.self_attn.q_proj.weight".
        shape: [out, in] of a matrix, [n] of a vector.
        floats: the tensor as it is stored, backed by the file; None where it is in codes.
        codes: where it is in codes.
    """

    name: str
    shape: tuple[int, ...]
    floats: Tensor | None = None
    codes: Codes | None = None


class Source:
    """A first-generation Qwen checkpoint.

    Args:
        folder: the checkpoint's.

    Attributes:
        quant: how the zero points of its codes are really stored; None where it is not quantised.

    Raises:
        CheckpointError: it is damaged, or of another architecture, or has what Qwen2 has no place for.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointError(
                "{path} is not a folder",
                "what is exported is a folder with config.json and safetensors",
                path=folder,
            )
        self.folder, self.config = folder, read_model_config(folder)
        if self.config.architecture.model_type != "qwen":
            raise CheckpointError(
                "{folder} is of the kind {kind}, which today's engines read as it is",
                "export is for the first Qwen generation",
                folder=folder,
                kind=self.config.architecture.model_type,
            )
        self.tokenizer = QwenTokenizer.from_folder(folder, self.config.vocab_size)
        if self.tokenizer.merging.pattern != SPLIT_PATTERNS["qwen"]:
            raise CheckpointError(
                "{folder}: its vocabulary splits texts otherwise than Qwen's",
                "this checkpoint cannot be exported",
                folder=folder,
            )
        self._files = TensorFiles(folder)
        check_layer_count(self.config, self._files)
        parameters = as_stored(list(list_parameters(self.config, self._files)), self._files)
        self._files.check_all_known()
        _refuse_others(folder, self.config.quant, parameters)
        self.quant: QuantConfig | None = next((p.gptq.quant for p in parameters if p.gptq), None)
        self._parameters = [p for p in parameters if not self._is_empty_bias(p)]

    def pieces(self) -> Iterator[tuple[str, list[Parameter]]]:
        """What is written in one go, each with a name: the embedding, the layers, the norm and the head."""
        for place, group in groupby(self._parameters, key=_place):
            yield place, list(group)

    def matrices(self, parameters: Sequence[Parameter]) -> Iterator[Matrix]:
        """The target's tensors of these parameters; of queries, keys and values three."""
        for parameter in parameters:
            names = _TARGET.stored(parameter.name)
            rows = self._rows(parameter, len(names))
            if parameter.gptq is None:
                floats = self._files.read(parameter.stored[0]).split_with_sizes(rows)
                for name, part in zip(names, floats, strict=True):
                    yield Matrix(name, tuple(part.shape), floats=part)
            else:
                inputs = parameter.shape[1]
                for name, outputs, codes in zip(names, rows, self._codes(parameter, rows), strict=True):
                    yield Matrix(name, (outputs, inputs), codes=codes)

    def let_go(self, parameters: Sequence[Parameter]) -> None:
        """Takes the pages of these parameters' files out of this process."""
        from qwenchat.engine.weights.tensor_files import let_go

        stored = [self._files.read(name) for parameter in parameters for name in parameter.stored]
        let_go((tensor.data_ptr(), tensor.nbytes) for tensor in stored)

    def bytes_stored(self) -> int:
        """The bytes of the weights."""
        entries = [self._files.entry(name) for parameter in self._parameters for name in parameter.stored]
        return sum(entry.end - entry.begin for entry in entries)

    def key(self, *kind: str) -> str:
        """What tells this source, and what is made of it, from another: names, sizes, times, config.json."""
        try:
            files = [
                (path.name, path.stat().st_size, path.stat().st_mtime_ns)
                for path in sorted(self.folder.iterdir())
                if path.suffix in (".safetensors", ".json", ".tiktoken")
            ]
        except OSError as error:
            raise CheckpointError(
                "{folder} cannot be read: {reason}", folder=self.folder, reason=reason_of(error)
            ) from error
        return hashlib.sha256(json.dumps([_FORMAT, *kind, files]).encode()).hexdigest()

    def differences(self) -> list[Phrase]:
        """What the target does not do as the source does, a line each."""
        config, lines = self.config, []
        stretched = [
            name
            for name, on in (("dynamic NTK", config.use_dynamic_ntk), ("LogN", config.use_logn_attn))
            if on
        ]
        if stretched:
            lines.append(
                Phrase(
                    "{switches} has no place in Qwen2: up to {tokens} tokens the two are equal, and the "
                    "exported model says that this is its context",
                    switches=" + ".join(stretched),
                    tokens=f"{config.seq_length:,}",
                )
            )
        return lines

    def _codes(self, parameter: Parameter, rows: Sequence[int]) -> list[Codes]:
        import torch

        from qwenchat.engine.weights import gptq

        assert parameter.gptq is not None
        quant, inputs = parameter.gptq.quant, parameter.shape[1]
        tensors = {name.rpartition(".")[2]: self._files.read(name) for name in parameter.stored}
        if "g_idx" in tensors:
            low, high = torch.stack(torch.aminmax(tensors["g_idx"])).tolist()
            parameter.gptq.check_order(parameter.gptq.layers[0], low, high)
        else:
            tensors["g_idx"] = (torch.arange(inputs) // parameter.gptq.group).to(torch.int32)
        return [
            gptq.Codes(**part, bits=quant.bits, group=parameter.gptq.group,
                       zeros_minus_one=quant.zeros_minus_one)
            for part in gptq.split(tensors, list(rows), bits=quant.bits)
        ]  # fmt: skip

    def _rows(self, parameter: Parameter, parts: int) -> list[int]:
        return [parameter.shape[0] // parts] * parts  # as many keys and values as queries

    def _is_empty_bias(self, parameter: Parameter) -> bool:
        """True for a bias of zeros where Qwen2 has none: auto-gptq stores one for every layer it packs."""
        if not parameter.name.endswith(".bias") or ".attention.qkv." in parameter.name:
            return False
        if self._files.read(parameter.stored[0]).any():
            raise CheckpointError(
                "{path}: {name} has no place in Qwen2",
                "this checkpoint cannot be exported",
                path=self._files.path(parameter.stored[0]),
                name=parameter.stored[0],
            )
        return True


_FORMAT = 1
"""Raised when what is written changes."""


def _place(parameter: Parameter) -> str:
    module = parameter.name.split(".")
    if module[0] == "layers":
        return f"layer {module[1]}"
    return "embedding" if module[0] == "embedding" else "head"


def check_same(before: ModelConfig, after: ModelConfig, path: Path) -> None:
    """Raises CheckpointError where a model that was read back is another one."""
    for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_key_value_heads", "head_dim",
                 "mlp_size", "seq_length", "norm_eps", "rope_base"):  # fmt: skip
        if getattr(before, name) != getattr(after, name):
            raise not_the_same(path, name)


def not_the_same(path: Path, name: str) -> CheckpointError:
    """The error for what was written and is read back as something else."""
    return CheckpointError(
        "{path}: {name} is not what was written",
        "the disk is damaged, or something else writes there: remove the folder and begin anew",
        path=path,
        name=name,
    )


def _refuse_others(folder: Path, quant: QuantConfig | None, parameters: Sequence[Parameter]) -> None:
    """Raises CheckpointError where the weights are in codes that the target has no place for."""
    head = any(p.gptq for p in parameters if p.name == "lm_head.weight")
    if quant is not None and (quant.awq or quant.dynamic or head):
        raise CheckpointError(
            "{folder}: it is not quantised as GPTQ does it, all layers alike and the output layer in floats",
            "this checkpoint cannot be exported",
            folder=folder,
        )
