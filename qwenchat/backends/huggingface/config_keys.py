"""The keys of a Hub model's ``config.json``: of what type each is, and which ones transformers does not read.

It takes whatever a key holds, keeps what it does not know, and says nothing. Here a value of another type is
refused before it makes something of it. A key that is not read is brought to where it is, or refused if the
model would compute something else without it, or noted in the log of ``--debug``.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.engine.fields import (
    CHANGES_RESULTS,
    MAX_CONTEXT,
    NUMBER,
    POSITIVE,
    SWITCH,
    TEXT,
    Kind,
    unfit,
    whole,
)
from qwenchat.errors import CheckpointError, quoted, shorten

_OTHERWISE = ("intermediate_size", "num_key_value_heads", "sliding_window_pattern")
"""What a published model may have otherwise than its default is: a list, or a text."""
_NEEDED = re.compile(
    "eps(ilon)?$|^(rope_theta|vocab_size|hidden_size|num_hidden_layers|num_attention_heads)$"
)
"""Names of what null is no value of, unless it is the default."""
_NO_COUNT = re.compile("theta|base|scal|factor|coef|alpha|rate|std|ratio")
"""Names of what need not be whole, though its default is."""
_NEWER = "rope_parameters"  # transformers 5's, for rope_theta and rope_scaling
_log = logging.getLogger(__name__)


def check_types(path: Path, written: Mapping[str, Any], kind: Any) -> None:
    """Looks at what the keys hold, before anything is made of them.

    Args:
        path: the file.
        written: what is in it.
        kind: the class of transformers that it is for, whose defaults show of what type each key is.

    Raises:
        CheckpointError: one holds something of another type, or a number that cannot be.
    """
    defaults = {
        name: parameter.default
        for base in reversed(kind.__mro__)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
    }
    for key, value in written.items():
        default = defaults.get(kind.attribute_map.get(key, key))
        expected = _kind_of(key, default)
        needed = _NEEDED.search(key) and default is not None
        if expected and (needed or value is not None) and not expected.fits(value):
            raise unfit(path, key, value, expected.told())
        part = kind.sub_configs.get(key)
        if isinstance(value, Mapping) and isinstance(part, type) and hasattr(part, "attribute_map"):
            check_types(path, value, part)


def _kind_of(key: str, default: object) -> Kind | None:
    """The kind of a key with this default; None if the default does not show it."""
    if key in _OTHERWISE or key.endswith("token_id"):
        return None
    if isinstance(default, bool):
        return SWITCH
    if isinstance(default, str) and default != "auto":
        return TEXT
    if isinstance(default, int) and not _NO_COUNT.search(key):
        return whole(0 if default >= 0 else -MAX_CONTEXT, MAX_CONTEXT)  # below 0: counted from the end
    if isinstance(default, (int, float)):
        # Nothing computes with a scale of 0 or less where others are above.
        return POSITIVE if default > 0 and CHANGES_RESULTS.search(key) else NUMBER
    return None


def check_keys(path: Path, written: Mapping[str, Any], config: Any, model_class: Any) -> None:
    """Looks for keys that are not read, and gives the configuration what it lacks for that.

    Args:
        path: the file.
        written: what is in it.
        config: what transformers made of it.
        model_class: what will be made of that.

    Raises:
        CheckpointError: one would change what the model computes.
    """
    text = config.get_text_config()
    for part in (written, written.get("text_config")):
        if isinstance(part, Mapping):
            _check_part(path, part, text, model_class)


def _check_part(path: Path, part: Mapping[str, Any], text: Any, model_class: Any) -> None:
    known = _words_of(type(text)) | _words_of(model_class)
    unread = sorted(key for key in part if key not in known)
    if _NEWER in unread:
        unread.remove(_NEWER)
        _take_over_rope(path, part[_NEWER], text)
    for key in unread:
        if part[key] and CHANGES_RESULTS.search(key):
            raise _not_read(path, key, part[key])
    _log.debug("%s: not read: %s", path, shorten(", ".join(unread) or "nothing", 300))


def _take_over_rope(path: Path, newer: Any, text: Any) -> None:
    if not newer:
        return
    if not isinstance(newer, dict) or any(isinstance(value, dict) for value in newer.values()):
        raise _not_read(path, _NEWER, newer)  # one for each kind of layer
    rest = dict(newer)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rest:
            if not hasattr(text, key):
                raise _not_read(path, _NEWER, newer)
            setattr(text, key, rest.pop(key))
    text.rope_scaling = None if rest.get("rope_type", "default") == "default" else rest


def _words_of(kind: Any) -> set[str]:
    """All that could be a name of a key, in the sources of a class's module and its ancestors'."""
    modules = {base.__module__ for base in kind.__mro__} | {"transformers.modeling_rope_utils"}
    sources = (
        inspect.getsource(sys.modules[m])
        for m in modules
        if m.startswith("transformers.") and m in sys.modules
    )
    return {word for source in sources for word in re.findall(r"[A-Za-z_]\w*", source)}


def _not_read(path: Path, key: str, value: object) -> CheckpointError:
    return CheckpointError(
        "{name}: {key} is {value}, which is not computed with",
        "this transformers does not know it: the model may be newer than that",
        name=path,
        key=key,
        value=quoted(value),
    )
