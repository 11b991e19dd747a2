"""Whether a GGUF file's vocabulary makes the same tokens of a text with us as with llama.cpp.

    python -m benchmarks.tokens FILE.gguf [--peer-python PATH]

The texts are short and tricky; no weight is read. Told are those of which other tokens are made.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import llama_cpp_server
from benchmarks.child import Child
from qwenchat.backends.native.chat_prompt import gguf_prompt
from qwenchat.errors import QwenchatError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.vocabulary import read_vocabulary

TEXTS = (
    *(
        "Hello, world!",
        " Hello",
        "  Hello",
        "Hello ",
        "Hello  world",
        "a",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\t",
    ),
    *(
        "The quick brown fox jumps over the lazy dog.",
        "don't won't I'm they've",
        "CamelCaseAndSCREAMING_SNAKE",
    ),
    *("1234567890", "3.14159", "1,000,000", "0x1F", "10^9", "2024-01-31T12:00:00Z", "50%", "$5.99"),
    *(
        "caf\u00e9",
        "e\u0301",
        "na\u00efve r\u00e9sum\u00e9",
        "Stra\u00dfe",
        "\u0130stanbul",
        "\u00bfQu\u00e9?",
        "\u2581under",
    ),
    *(
        "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
        "\u6211\u4eec\u5b66\u4e60 AI \u6280\u672f",
        "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8",
        "\ud55c\uad6d\uc5b4",
    ),
    *(
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u05e9\u05dc\u05d5\u05dd",
    ),
    *(
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea flags",
        "\u200b",
        "\ufeffbom",
        "a\u00a0b",
        "\u3000x",
    ),
    *(
        "def f(x):\n    return x + 1\n",
        '<div class="a">b</div>',
        "SELECT * FROM t WHERE a='b';",
        "x=1;y=2",
        "{}[]()<>",
    ),
    *(
        "----------",
        "=======",
        "aaaaaaaaaaaaaaa",
        "....",
        "!?!?",
        "`code` **bold** _it_",
        "a  b   c    d",
        "\r\nline\r\n",
    ),
    *(
        "https://example.org/a?b=c&d=%20#e",
        "user@example.org",
        "C:\\dir\\file.txt",
        "\u2028",
        "\x00\x01",
        "<0x41>",
    ),
    *(
        "antidisestablishmentarianism",
        "tttthe thethe the",
        "\u0e44\u0e17\u0e22",
        "\u2603\ufe0f \u2764",
        "f\ufb01ne",
    ),
)


def differing(file: Path, peer: Child) -> list[tuple[str, list[int], list[int]]]:
    """The texts of which both make other tokens, with ours and theirs.

    Raises:
        QwenchatError: one of them cannot read the file.
    """
    vocabulary = read_vocabulary(read_gguf(file))
    tokenizer = gguf_prompt(vocabulary, len(vocabulary.tokens), complete=True).tokenizer
    ours = [tokenizer.encode(text) for text in TEXTS]
    theirs = peer.ask("tokenise", model=str(file), texts=TEXTS)["ids"]
    return [(text, a, b) for text, a, b in zip(TEXTS, ours, theirs, strict=True) if a != b]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    options = parser.parse_args()
    command = [options.peer_python, str(Path(llama_cpp_server.__file__))]
    try:
        with Child("llama.cpp", command, tell=lambda line: print(line, file=sys.stderr)) as peer:
            found = differing(options.file.absolute(), peer)
    except QwenchatError as error:
        print(f"benchmarks.tokens: {error}", file=sys.stderr)
        return error.exit_code
    print(f"the same tokens of {len(TEXTS) - len(found)} of {len(TEXTS)} texts")
    for text, ours, theirs in found:
        print(json.dumps({"text": text, "ours": ours, "theirs": theirs}, ensure_ascii=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
