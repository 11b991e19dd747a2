"""The model configuration in a checkpoint's JSON: shapes, context, quantisation.

Reads ``config.json`` by the names that its architecture's record has, and ``quantize_config.json``; loads no
torch and trusts no value before it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.engine.architectures import ARCHITECTURES, Architecture, Switch
from qwenchat.engine.fields import (
    EPSILON,
    FULL_ATTENTION,
    MAX_CONTEXT,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ROPE_BASE,
    Fields,
    not_computed,
)
from qwenchat.engine.rope_scaling import RopeScaling, Yarn, read_rope
from qwenchat.errors import CheckpointError, Names, NotComputedError, quoted, shorten
from qwenchat.files.json_values import read_json

_OVERRIDES = {"bits", "group_size", "sym", "desc_act", "mse", "damp_percent", "static_groups"}
"""What a matrix may have of its own that is read off from its tensors, or only told how it was made."""


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """The quantisation of the linear layers.

    Attributes:
        bits: 4 or 8.
        group_size: inputs that share a scale; -1 for all of them.
        act_order: whether inputs are spread over the groups by ``g_idx`` (``desc_act``).
        zeros_minus_one: whether zero points are stored minus one (the ``gptq`` format) or as they
            are (``gptq_v2``).
        awq: whether codes are packed as AWQ packs them, see :mod:`qwenchat.engine.weights.awq`.
        dynamic: whether some matrices may have other bits and groups, which are those that are stored.
    """

    bits: int
    group_size: int
    act_order: bool
    zeros_minus_one: bool
    awq: bool = False
    dynamic: bool = False

    def groups(self, inputs: int) -> int:
        """The number of groups along ``inputs`` inputs."""
        return 1 if self.group_size == -1 else -(-inputs // self.group_size)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shapes and switches of a model.

    Attributes:
        architecture: the names of its tensors.
        vocab_size: rows of the embedding, padding included.
        hidden_size: width of the residual stream.
        num_layers: transformer blocks.
        num_heads: attention heads.
        num_key_value_heads: heads with keys and values of their own; as many query heads share each.
        head_dim: width of a head.
        mlp_size: width of the MLP's hidden layer.
        seq_length: the context the model was trained on, in tokens.
        max_position_embeddings: the longest context it can be stretched to.
        norm_eps: RMSNorm's epsilon.
        rope_base: the rotary embedding's base.
        use_dynamic_ntk: stretch the rotary base for prompts longer than ``seq_length``.
        use_logn_attn: scale queries by the logarithm of their position beyond ``seq_length``.
        qkv_bias, output_bias, mlp_bias: whether queries, keys and values, the attention's output, and the
            MLP have biases.
        qk_norm: norm queries and keys, each head by itself, before they are rotated.
        tie_word_embeddings: whether ``lm_head`` is the embedding itself.
        quant: how the linear layers are quantised, or None.
        rope_scaling: how the rotary embedding is stretched, or None.
        sliding_window: how far back a token would see in a longer context, where that is why no longer one
            is taken; else None.
    """

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    mlp_size: int
    seq_length: int
    max_position_embeddings: int
    norm_eps: float
    rope_base: float
    use_dynamic_ntk: bool
    use_logn_attn: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tie_word_embeddings: bool
    quant: QuantConfig | None
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None

    @property
    def query_size(self) -> int:
        """The width of all heads' queries together."""
        return self.num_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """The width of all keys together, and of all values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def qkv_size(self) -> int:
        """The width of queries, keys and values together."""
        return self.query_size + 2 * self.key_value_size


def read_model_config(folder: Path) -> ModelConfig:
    """Reads ``config.json`` of a checkpoint folder.

    Raises:
        CheckpointError: the file is missing or damaged, a key is missing or has a value it cannot
            have, or the model or its quantisation is of a kind that the engine does not read.
    """
    path = folder / "config.json"
    fields = Fields(path, read_json(path))
    return model_config(fields, lambda: _read_quant_config(folder, fields))


def model_config(fields: Fields, read_quant: Callable[[], QuantConfig | None] = lambda: None) -> ModelConfig:
    """The model of which a ``config.json`` speaks, or what says the same in its words.

    Args:
        fields: its keys.
        read_quant: reads how the linear layers are quantised.

    Raises:
        CheckpointError: as :func:`read_model_config`.
    """
    path, architecture = fields.path, _read_architecture(fields)
    keys = architecture.keys
    hidden_size = fields.integer(*keys.hidden_size, most=MAX_WIDTH)
    num_heads, num_key_value_heads, head_dim = _read_heads(fields, architecture, hidden_size)
    # At least 2: LogN divides by its logarithm.
    seq_length = fields.integer(*keys.seq_length, least=2, most=MAX_CONTEXT)
    positions = fields.integer(*keys.max_position_embeddings, most=MAX_CONTEXT, default=seq_length)
    positions = max(positions, seq_length)
    rope_base = fields.number(*keys.rope_base, kind=ROPE_BASE, default=architecture.rope_base)
    rope_base, scaling = read_rope(fields, rope_base, positions, architecture.rope_scaling)
    if isinstance(scaling, Yarn):
        # Published configs have it added to them, and go on saying what there was before.
        positions = max(positions, min(int(scaling.original * scaling.factor), MAX_CONTEXT))
    window = _read_window(fields, architecture, positions)
    if window is not None:
        # As far as it reaches, attention is the full one.
        seq_length, positions = min(seq_length, window), window
    for name, only in architecture.fixed.items():
        value = fields.raw(name)
        if value is not None and (value != only or isinstance(value, bool) != isinstance(only, bool)):
            raise not_computed(path, name, value, quoted(only))
    config = ModelConfig(
        architecture=architecture,
        vocab_size=fields.integer(*keys.vocab_size, most=MAX_VOCABULARY),
        hidden_size=hidden_size,
        num_layers=fields.integer(*keys.num_layers, most=MAX_LAYERS),
        num_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        head_dim=head_dim,
        mlp_size=_read_mlp_size(fields, architecture),
        seq_length=seq_length,
        max_position_embeddings=positions,
        norm_eps=fields.number(*keys.norm_eps, kind=EPSILON),
        rope_base=rope_base,
        use_dynamic_ntk=_read_switch(fields, architecture.dynamic_ntk),
        use_logn_attn=_read_switch(fields, architecture.logn),
        qkv_bias=_read_switch(fields, architecture.qkv_bias),
        output_bias=_read_switch(fields, architecture.output_bias),
        mlp_bias=_read_switch(fields, architecture.mlp_bias),
        qk_norm=architecture.qk_norm,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
        quant=read_quant(),
        rope_scaling=scaling,
        sliding_window=window,
    )
    fields.raw(*architecture.unused)
    # Names that other model types give to what is read above.
    same = {
        "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "partial_rotary_factor": 1.0,
    }
    fields.refuse_unread(same)
    return config


def _read_architecture(fields: Fields) -> Architecture:
    model_type = fields.raw("model_type")
    found = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if found is None:
        raise NotComputedError(
            "{path}: model_type is {model_type}; our own engine reads {known}",
            "transformers reads other models: --backend huggingface",
            in_chat="transformers reads other models: start qwenchat with --backend huggingface",
            path=fields.path,
            model_type=quoted(model_type),
            known=Names(ARCHITECTURES),
        )
    return found


def _read_heads(fields: Fields, architecture: Architecture, hidden_size: int) -> tuple[int, int, int]:
    """The heads, those of keys and values, and the width of each."""
    keys = architecture.keys
    heads = fields.integer(*keys.num_heads, most=MAX_WIDTH)
    default = architecture.head_dim or hidden_size // heads
    head_dim = fields.integer(*keys.head_dim, most=MAX_WIDTH, default=default)
    own = architecture.own_head_dim and (fields.raw(*keys.head_dim) or architecture.head_dim) is not None
    if (head_dim * heads != hidden_size and not own) or head_dim % 2 or head_dim * heads > MAX_WIDTH:
        raise CheckpointError(
            "{path}: {num_heads} heads of {head_dim} do not make hidden_size {hidden_size}, "
            "expected an even head size and no remainder",
            path=fields.path,
            num_heads=heads,
            head_dim=head_dim,
            hidden_size=hidden_size,
        )
    key_value_heads = fields.integer(*keys.num_key_value_heads, most=MAX_WIDTH, default=heads)
    if heads % key_value_heads:
        raise CheckpointError(
            "{path}: {heads} heads cannot share {key_value_heads} key/value heads, expected no remainder",
            path=fields.path,
            heads=heads,
            key_value_heads=key_value_heads,
        )
    return heads, key_value_heads, head_dim


def _read_window(fields: Fields, architecture: Architecture, positions: int) -> int | None:
    """How far back a token sees, where that is less than to the first of so many positions."""
    fields.of(FULL_ATTENTION, "layer_types", default=[])
    if not architecture.windowed:
        return None
    # At least 2, as a context.
    window = fields.integer("sliding_window", least=2, most=MAX_CONTEXT, default=positions)
    return window if window < positions else None


def _read_mlp_size(fields: Fields, architecture: Architecture) -> int:
    size = fields.integer(*architecture.keys.mlp_size, most=MAX_WIDTH)
    if not architecture.halves_counted:
        return size
    if size % 2:
        raise CheckpointError(
            "{path}: intermediate_size is {intermediate_size}, expected an even number",
            path=fields.path,
            intermediate_size=size,
        )
    return size // 2


def _read_switch(fields: Fields, switch: Switch | bool) -> bool:
    if isinstance(switch, bool):
        return switch
    return fields.boolean(switch.key, default=switch.default) != switch.negated


def _read_quant_config(folder: Path, fields: Fields) -> QuantConfig | None:
    section = fields.raw("quantization_config")
    path = fields.path
    if section is None:
        # Where auto-gptq wrote it before transformers moved it into config.json.
        path = folder / "quantize_config.json"
        if not path.exists():
            return None
        section = read_json(path)
    if not isinstance(section, dict):
        raise CheckpointError("{path}: quantization_config is not an object", path=path)
    quant = Fields(path, section)
    method = quant.raw("quant_method")
    if method == "awq":
        return _read_awq(quant)
    if method not in (None, "gptq"):
        raise CheckpointError(
            "{path}: quant_method is {method}, expected 'gptq' or 'awq'", path=path, method=quoted(method)
        )
    bits = quant.integer("bits", most=32)
    if bits not in (4, 8):
        raise CheckpointError("{path}: bits is {bits}, expected 4 or 8", path=path, bits=bits)
    group_size = quant.integer("group_size", least=-1, most=MAX_WIDTH)
    if group_size == 0:
        raise _no_group(path)
    checkpoint_format = quant.raw("checkpoint_format")
    if checkpoint_format not in (None, "gptq", "gptq_v2"):
        raise CheckpointError(
            "{path}: checkpoint_format is {checkpoint_format}, expected 'gptq' or 'gptq_v2'",
            path=path,
            checkpoint_format=quoted(checkpoint_format),
        )
    return QuantConfig(
        bits,
        group_size,
        act_order=quant.boolean("desc_act", default=False),
        zeros_minus_one=checkpoint_format != "gptq_v2",
        dynamic=_read_dynamic(quant),
    )


def _read_dynamic(quant: Fields) -> bool:
    """Whether matrices are quantised in several ways.

    Which, GPTQModel says by regular expressions, which would run for as long as a file wants; so it is read
    off from the tensors.
    """
    rules = quant.raw("dynamic") or {}
    if not isinstance(rules, dict):
        raise CheckpointError("{path}: dynamic is not an object", path=quant.path)
    for overrides in rules.values():
        unknown = sorted(overrides.keys() - _OVERRIDES) if isinstance(overrides, dict) else []
        if unknown:
            raise not_computed(quant.path, shorten(f"dynamic.{unknown[0]}"), overrides[unknown[0]], "none")
    return bool(rules)


def _read_awq(quant: Fields) -> QuantConfig:
    version, zero_point = quant.raw("version"), quant.raw("zero_point")
    if not isinstance(version, str | None) or (version or "gemm").lower() != "gemm":
        raise not_computed(quant.path, "version", version, quoted("gemm"))
    if zero_point is False:
        raise not_computed(quant.path, "zero_point", zero_point, "true")
    bits = quant.integer("bits", "w_bit", most=32)
    if bits != 4:
        raise not_computed(quant.path, "bits", bits, "4")
    group_size = quant.integer("group_size", "q_group_size", least=-1, most=MAX_WIDTH)
    if group_size == 0:
        raise _no_group(quant.path)
    return QuantConfig(bits, group_size, act_order=False, zeros_minus_one=False, awq=True)


def _no_group(path: Path) -> CheckpointError:
    return CheckpointError("{path}: group_size is 0, expected -1 or a positive number", path=path)


def refuse_mixed(path: Path, quantization: Mapping[str, Any]) -> None:
    """Raises CheckpointError where GPTQ is said to be other than one way for all of a model's layers.

    Args:
        path: the file that says so.
        quantization: what it says.
    """
    if quantization.get("lm_head"):
        raise CheckpointError(
            "{path}: the output matrix (lm_head) is quantised as well, which is not read",
            "look for a version of the model with lm_head in floats",
            path=path,
        )
    rules = quantization.get("dynamic")
    # "-:" leaves layers as they were: they are read as they are stored.
    if rules and not (isinstance(rules, dict) and all(rule.startswith("-:") for rule in rules)):
        raise CheckpointError(
            "{path}: some layers are quantised in a way of their own (dynamic), which is not read",
            "look for a version of the model with all layers quantised alike",
            path=path,
        )
