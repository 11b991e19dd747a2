"""Damaged and hostile files of every format that is read: each is read, or refused in a line.

    python -m tests.stress.damaged_files [INPUTS] [SEED]

Each input is a healthy checkpoint, session or config file of which one file was changed: bytes flipped, cut
or repeated, JSON values exchanged, a bomb or a special file in its place. It is read in a process of its own.
The verdict: no other error than qwenchat's own, in a line; at most 500 MB and 2 seconds of a processor above
what the healthy one takes; and an end. Prints what broke it with the seed that makes it again, then the
figures as JSON; ends with 1 if anything did.
"""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_MEGABYTES, MOST_SECONDS, PATIENCE = 500, 2.0, 60
LONGEST_LINE = 2000
NUMBERS = [0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e-300, float("inf"), float("nan"), 0.5]
WORDS = ["", "x" * 300, "x" * 3_000_000, "\ud800", "\0", "../../etc/passwd", "\x1b[2J\n\n", "null"]
PIECES = [
    *(
        "{{ messages }}",
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if 1|round(99999999, 'floor') %}x{% endif %}",
    ),
    *(
        "{{ 'x' * 999999999 }}",
        "{{ range(99999999)|list }}",
        "{{ ''.join(['x'] * 9999999) }}",
        "{{ 9**9**9 }}",
    ),
    *(
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ raise_exception('no') }}",
        "{{ messages[0].x.y }}",
    ),
    *(
        "{% set n = namespace(a='x') %}" + "{% set n = namespace(a=n, b=n) %}" * 40 + "{{ n }}",
        "{{ '%9999999999d' is odd }}",
    ),
    *(
        "{{ messages|tojson(indent=99999999) }}",
        "{{ 'x'|center(999999999) }}",
        "{% include 'x' %}",
        "{{ self }}",
    ),
]


@dataclass(frozen=True)
class Subject:
    """What is spoilt: a folder that is healthy, the files of it that are changed, and who reads it."""

    name: str
    folder: Path
    files: tuple[str, ...]
    read: Callable[[Path], object]


# --- the healthy ones ----------------------------------------------------------------------------


def read_model(place: Path) -> None:
    from qwenchat.backends.load import check_readable
    from qwenchat.backends.request import LoadRequest

    check_readable(place, LoadRequest(str(place), device="cpu"))


def read_gguf(folder: Path) -> None:
    read_model(folder / "model.gguf")


def read_sessions(folder: Path) -> None:
    from qwenchat.sessions.store import SessionStore

    store = SessionStore(folder)
    store.list(), store.latest(), store.search("needle"), store.record("a" * 12)


def read_config(folder: Path) -> None:
    from qwenchat.settings.sources import load_settings

    load_settings({}, {}, folder / "config.toml")


def native(folder: Path) -> Path:
    """A first-generation Qwen of one layer, a token a byte."""
    import numpy as np
    from safetensors.numpy import save_file

    hidden, vocabulary, block = 64, 320, "transformer.h.0."
    shapes = {
        "transformer.wte.weight": (vocabulary, hidden),
        "transformer.ln_f.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
        f"{block}ln_1.weight": (hidden,),
        f"{block}ln_2.weight": (hidden,),
        f"{block}attn.c_attn.weight": (3 * hidden, hidden),
        f"{block}attn.c_attn.bias": (3 * hidden,),
        f"{block}attn.c_proj.weight": (hidden, hidden),
        f"{block}mlp.w1.weight": (64, hidden),
        f"{block}mlp.w2.weight": (64, hidden),
        f"{block}mlp.c_proj.weight": (hidden, 64),
    }
    folder.mkdir()
    tensors = {name: np.ones(shape, np.float16) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(shapes, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "qwen",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "kv_channels": 32,
        "intermediate_size": 128,
        "seq_length": 512,
        "layer_norm_epsilon": 1e-6,
        "no_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(
        json.dumps({"top_p": 0.8, "top_k": 0, "eos_token_id": 258})
    )
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (folder / "bytes.tiktoken").write_text("".join(lines))
    forms = enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), 256)
    decoder = {str(i): {"content": form, "special": True} for i, form in forms}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    return folder


def gguf_model(folder: Path, hub: Path, template: str) -> Path:
    """The metadata and the directory of a Llama."""
    import numpy as np
    from gguf import GGUFWriter

    layout = json.loads((hub / "tokenizer.json").read_text())
    words = sorted(layout["model"]["vocab"], key=layout["model"]["vocab"].get)
    tokens = [*words, *(token["content"] for token in layout["added_tokens"])]
    folder.mkdir()
    writer = GGUFWriter(str(folder / "model.gguf"), "llama")
    for add, value in (
        *((writer.add_context_length, 512), (writer.add_embedding_length, 32), (writer.add_block_count, 1)),
        *((writer.add_feed_forward_length, 64), (writer.add_head_count, 4), (writer.add_head_count_kv, 2)),
        *((writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 1e4)),
        *((writer.add_rope_dimension_count, 8), (writer.add_vocab_size, len(tokens))),
        *((writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, "default")),
        *((writer.add_token_list, tokens), (writer.add_bos_token_id, len(words))),
        *((writer.add_eos_token_id, len(words) + 2), (writer.add_chat_template, template)),
    ):
        add(value)  # type: ignore[operator]
    writer.add_token_types([1] * len(words) + [3] * (len(tokens) - len(words)))
    writer.add_token_merges([" ".join(merge) for merge in layout["model"]["merges"]])
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def session(folder: Path) -> Path:
    from qwenchat.sessions.store import SessionStore
    from tests.chats import replied, user

    now = "2025-01-01T00:00:00+00:00"
    with SessionStore(folder).create() as opened:
        opened.conversation.ask(user("a needle"), now)
        opened.conversation.reply(*replied("hay", "complete"), now)
        opened.save()
    (written,) = folder.glob("*.json")
    text = written.read_text().replace(written.stem, "a" * 12)
    written.unlink()
    (folder / f"{'a' * 12}.json").write_text(text)
    return folder


def subjects(root: Path) -> list[Subject]:
    from conftest import STYLES, write_model

    hub = write_model(root / "hub", STYLES["qwen2"])
    (root / "config").mkdir()
    (root / "config" / "config.toml").write_text('temperature = 0.5\n[prompts]\nteacher = "Teach."\n')
    known = sorted(path.name for path in hub.iterdir())
    ours = native(root / "native")
    return [
        Subject("native", ours, tuple(sorted(path.name for path in ours.iterdir())), read_model),
        Subject("hub", hub, (*known, "chat_template.jinja", "special_tokens_map.json"), read_model),
        Subject("gguf", gguf_model(root / "gguf", hub, STYLES["qwen2"].template), ("model.gguf",), read_gguf),
        Subject("session", session(root / "session"), (f"{'a' * 12}.json",), read_sessions),
        Subject("config", root / "config", ("config.toml",), read_config),
    ]


# --- what is done to them ------------------------------------------------------------------------


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[place : place + 1] = rng.randbytes(1)
            case 1:
                changed[place : place + 8] = struct.pack(
                    "<Q", rng.choice([0, 1, 2**31, 2**32 - 1, 2**60, 2**64 - 1])
                )
            case 2:
                del changed[place : place + rng.randint(1, 64)]
            case 3:
                changed[place:place] = changed[place : place + 64] * rng.choice([1, 10, 1000])
            case _:
                del changed[place:]
    return bytes(changed)


def any_value(rng: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(WORDS),
        lambda: rng.choice([None, True, False]),
    ]
    if depth < 3:
        kinds.append(
            lambda: [
                any_value(rng, depth + 1) for _ in range(rng.choice([0, 1, 3, 1000 if depth == 0 else 2]))
            ]
        )
        kinds.append(lambda: {rng.choice(WORDS[:2] + WORDS[3:]): any_value(rng, depth + 1) for _ in range(3)})
    return rng.choice(kinds)()


def value_changed(value: Any, rng: random.Random) -> Any:
    """A value of JSON of which one somewhere is another."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {other: entry for other, entry in value.items() if other != key}
        return value | {key: value_changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], value_changed(value[place], rng), *value[place + 1 :]]
    return any_value(rng)


def bomb(name: str, rng: random.Random) -> bytes:
    """What is small in a file and large in memory, or takes long."""
    count = rng.choice([10_000, 300_000, 3_000_000])
    if name.endswith(".toml"):
        return rng.choice(
            [
                b".".join([b"a"] * count) + b" = 1",
                b"a = " + b"[" * count,
                b"[[a]]\n" * count,
                b"a = '" + b"x" * count,
            ]
        )
    if name.endswith(".tiktoken"):
        return rng.choice(
            [
                b"QQ== 0\n" * count,
                b"".join(b"%s %d\n" % (base64.b64encode(b"%d" % i), i) for i in range(count)),
            ]
        )
    if name.endswith(".gguf"):
        strings = (
            struct.pack("<QQ", 0, count) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, count) + bytes(8 * count)
        )
        return b"GGUF" + struct.pack("<I", 3) + strings
    if name.endswith(".jinja"):
        return b"".join(rng.choice(PIECES).encode() for _ in range(rng.choice([1, 3, 1000])))
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = rng.choice(
        [
            lambda: '{"a":[' + ",".join(["{}"] * count) + "]}",
            lambda: '{"a":' + "[" * count,
            lambda: "{" + ",".join(f'"{i}":{entry}' for i in range(count // 10)) + "}",
            lambda: '{"a":"' + "x" * count + '"}',
            lambda: (
                '{"added_tokens_decoder":{'
                + ",".join(f'"{i}":{{"content":"<{i}>"}}' for i in range(count // 10))
                + "}}"
            ),
            lambda: (
                '{"a":{"dtype":"F32","shape":['
                + ",".join([str(2**62)] * (count // 10))
                + '],"data_offsets":[0,0]}}'
            ),
        ]
    )()
    data = text.encode()
    return struct.pack("<Q", len(data)) + data if name.endswith(".safetensors") else data


def json_changed(name: str, data: bytes, rng: random.Random) -> bytes:
    head = 8 if name.endswith(".safetensors") else 0
    length = struct.unpack("<Q", data[:8])[0] if head else len(data)
    value = json.loads(data[head : head + length])
    for _ in range(rng.randint(1, 3)):
        value = value_changed(value, rng)
    made = json.dumps(value).encode()
    return struct.pack("<Q", len(made)) + made + data[head + length :] if head else made


def spoil(path: Path, rng: random.Random) -> str:
    """Changes a file, or puts something in its place; says what was done."""
    data = path.read_bytes() if path.exists() else b"{}"
    chance = rng.random()
    path.unlink(missing_ok=True)
    if chance < 0.04:
        what = rng.choice(["pipe", "zero", "folder", "circle"])
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if what == "zero" else path.name)
        return what
    if chance < 0.14:
        path.write_bytes(bomb(path.name, rng))
        return "bomb"
    if chance < 0.6 and path.suffix in (".json", ".safetensors"):
        path.write_bytes(json_changed(path.name, data, rng))
        return "value"
    if chance < 0.6 and path.suffix == ".jinja":
        pieces = [data.decode(), *rng.choices(PIECES, k=rng.randint(1, 3))]
        path.write_text("".join(rng.sample(pieces, len(pieces))))
        return "template"
    path.write_bytes(bytes_changed(data, rng))
    return "bytes"


# --- the verdict ---------------------------------------------------------------------------------


def measured(read: Callable[[Path], object], folder: Path) -> tuple[str, float, int]:
    """What came of reading, the processor's seconds and the megabytes; "" for read or refused well."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30,) * 2)
        signal.alarm(PATIENCE)
        told = ""
        try:
            read(folder)
        except BaseException as error:  # noqa: BLE001 - what it is, is the question
            from qwenchat.errors import QwenchatError

            line = str(error)
            if not isinstance(error, QwenchatError):
                told = traceback.format_exc()[-1500:]
            elif "\n" in line or len(line) > LONGEST_LINE:
                told = f"the line is none: {len(line)} letters, {line[:200]!r}"
        os.write(sender, told.encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        told = pipe.read().decode()
    _, status, used = os.wait4(child, 0)
    if status:
        told = f"ended by status {status} (14: it was waited for {PATIENCE} s)"
    return told, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def main() -> int:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"seed {seed}", flush=True)
    broken, worst = 0, {"seconds": 0.0, "megabytes": 0}
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as name:
        root = Path(name)
        os.environ["QWENCHAT_HOME"] = str(root / "home")
        known = subjects(root)
        healthy = {}
        for subject in known:
            subject.read(subject.folder)  # what is imported once is not counted
            told, *healthy[subject.name] = measured(subject.read, subject.folder)
            assert not told, told
        for number in range(inputs):
            rng = random.Random(seed + number)
            subject = rng.choices(known, weights=[4, 4, 3, 2, 1])[0]
            file = rng.choice(subject.files)
            place = root / "spoilt"
            shutil.copytree(subject.folder, place)
            what = spoil(place / file, rng)
            told, seconds, megabytes = measured(subject.read, place)
            seconds, megabytes = seconds - healthy[subject.name][0], megabytes - healthy[subject.name][1]
            worst = {
                "seconds": max(worst["seconds"], seconds),
                "megabytes": max(worst["megabytes"], megabytes),
            }
            if told or seconds > MOST_SECONDS or megabytes > MOST_MEGABYTES:
                broken += 1
                took = f"{seconds:.1f} s, {megabytes} MB"
                print(f"seed {seed + number}: {subject.name}, {file}, {what}: {took} {told}", flush=True)
            shutil.rmtree(place)
    print(json.dumps({"inputs": inputs, "broken": broken, **worst}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
