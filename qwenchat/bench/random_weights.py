"""Models of the published shapes with random weights: speed does not depend on their values.

Owns the names that they are asked for by; the shapes are ``models.shapes``'s. What it makes is the very
model that loading a checkpoint makes, quantised layers in their codes where the device reads codes, and goes
the same way from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qwenchat.engine.config import ModelConfig, QuantConfig
from qwenchat.engine.sizes import float_bytes, packed_bytes
from qwenchat.errors import Names, UsageError
from qwenchat.models import published
from qwenchat.models.published import GROUP
from qwenchat.models.shapes import SHAPES

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from qwenchat.engine.model import Qwen
    from qwenchat.engine.weights.gptq import Codes
    from qwenchat.engine.weights.quantized_layout import QuantizedLayout

FORMATS = {"int8": 8, "int4": 4, "fp16": None, "bf16": None}
"""The formats, with the bits of what is quantised."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A published model: the chat, as :data:`SHAPES` calls it, and a format of it."""

    chat: str
    format: str

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.chat}-{self.format}"

    @property
    def config(self) -> ModelConfig:
        """Its ``config.json``."""
        bits = FORMATS[self.format]
        quant = None if bits is None else QuantConfig(bits, GROUP, act_order=False, zeros_minus_one=True)
        return replace(SHAPES[self.chat], quant=quant)


def shape_of(name: str) -> Shape:
    """The model called ``name``: "qwen-7b-chat-int8", "qwen2.5-7b-int4"; without a format it is in floats.

    Raises:
        UsageError: there is none of that name.
    """
    wanted = name.lower().removeprefix("qwen/").replace("-gptq-", "-")
    match = re.fullmatch(rf"(.*?)(?:-({'|'.join(FORMATS)}))?", wanted, re.DOTALL)
    chat = published.chat_of(match[1]) if match else None
    if match is None or chat is None:
        raise UsageError(
            "no published shapes are known of {name}",
            "known are {names}, each also with -int8 or -int4 behind it",
            name=name,
            names=Names(SHAPES),
        )
    return Shape(chat, match[2] or ("fp16" if SHAPES[chat].architecture.model_type == "qwen" else "bf16"))


def published_chat(config: ModelConfig) -> str | None:
    """The published chat that has these shapes, the first of several; or None."""

    def shape(c: ModelConfig) -> tuple[object, ...]:
        return c.architecture, c.hidden_size, c.num_layers, c.mlp_size

    return next((chat for chat, known in SHAPES.items() if shape(known) == shape(config)), None)


def formats_of(names: str) -> tuple[str, ...]:
    """The formats of a list with commas, in its order.

    Raises:
        UsageError: one of them is unknown.
    """
    formats = tuple(name.strip().lower() for name in names.split(","))
    for name in formats:
        if name not in FORMATS:
            raise UsageError(
                "unknown format {name}", "known are {names}", name=repr(name), names=Names(FORMATS)
            )
    return tuple(dict.fromkeys(formats))


def bytes_of(config: ModelConfig, itemsize: int, *, packed: bool) -> int:
    """Bytes that a model takes, as :func:`random_model` makes it."""
    if packed:
        return packed_bytes(config, floats=itemsize, zeros=0)  # they are the middle throughout
    return float_bytes(config, itemsize)


def random_model(
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    layout: QuantizedLayout | None,
    seed: int = 0,
) -> Qwen:
    """A model as loading makes it, its weights such that activations stay around one.

    Args:
        layout: keeps quantised layers in their codes; without it they are floats, of the same values.
    """
    import torch
    from torch import nn

    from qwenchat.engine.model import Qwen, RMSNorm
    from qwenchat.engine.weights import gptq

    generator = torch.Generator(device).manual_seed(seed)
    stored = torch.float16 if config.quant else dtype

    def normal(shape: torch.Size, deviation: float) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=stored).mul_(deviation)

    def parameter(value: Tensor) -> nn.Parameter:
        return nn.Parameter(layout.keep(value) if layout else value.to(dtype), requires_grad=False)

    with torch.device("meta"):  # shapes without memory
        model = Qwen(config)
    for name, module in list(model.named_modules()):
        path, _, field = name.rpartition(".")
        if isinstance(module, nn.Linear):
            bias = None if module.bias is None else normal(module.bias.shape, 0.01)
            if config.quant and field != "lm_head":
                codes = random_codes(module.out_features, module.in_features, config.quant, generator)
                if layout and (layer := layout.layer(codes)):
                    if bias is not None:
                        layer.set_bias(layout.keep(bias))
                    setattr(model.get_submodule(path), field, layer)
                    continue
                module.weight = nn.Parameter(gptq.dequantize(codes).to(dtype), requires_grad=False)
            else:
                module.weight = parameter(normal(module.weight.shape, module.in_features**-0.5))
            module.bias = None if bias is None else parameter(bias)
        elif isinstance(module, nn.Embedding):
            module.weight = parameter(normal(module.weight.shape, embedding_deviation(config)))
        elif isinstance(module, RMSNorm):
            weight = torch.rand(module.weight.shape, generator=generator, device=device) + 0.5
            module.weight = parameter(weight.to(stored))
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embedding.weight
    return model.eval()


def embedding_deviation(config: ModelConfig) -> float:
    """The standard deviation of the embedding's values; where it is the output matrix too, that one's."""
    return config.hidden_size**-0.5 if config.tie_word_embeddings else 1.0


def random_codes(outputs: int, inputs: int, quant: QuantConfig, generator: Generator) -> Codes:
    """A quantised matrix with codes all over their range; what it makes of an input is as large as that."""
    import torch

    from qwenchat.engine.weights.gptq import Codes

    device, bits = generator.device, quant.bits
    groups = quant.groups(inputs)
    words = (inputs * bits // 32, outputs)
    qweight = torch.randint(-(2**31), 2**31, words, dtype=torch.int32, device=device, generator=generator)
    # Zero points in the middle, stored minus one.
    middle = int.from_bytes(bytes([0x7F if bits == 8 else 0x77] * 4), "little")
    qzeros = torch.full((groups, outputs * bits // 32), middle, dtype=torch.int32, device=device)
    scales = random_scales((groups, outputs), inputs, bits, generator)
    group = inputs if quant.group_size == -1 else quant.group_size
    return Codes(qweight, qzeros, scales, None, bits, group)


def random_scales(shape: tuple[int, int], inputs: int, bits: int, generator: Generator) -> Tensor:
    """float16 scales around what makes codes of any value a matrix that keeps the size of its input."""
    import torch

    deviation = 2**bits / 12**0.5  # of codes that are spread evenly
    spread = torch.rand(shape, generator=generator, device=generator.device) + 0.5
    return spread.mul_(inputs**-0.5 / deviation).half()
