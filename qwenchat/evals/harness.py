"""lm-evaluation-harness on our models: its own command line, with our model class known to it.

    python -m qwenchat.evals.harness --model_args model=demo --tasks arc_easy --limit 100

It finds no classes of other packages by itself, which is why this module starts it. From Python it is
``lm_eval.simple_evaluate(model=HarnessModel("demo"), tasks=[...])``, the class from ``harness_model``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qwenchat.errors import QwenchatError
from qwenchat.evals.data import need
from qwenchat.i18n.language import told


def main(arguments: Sequence[str]) -> int:
    """Hands a command line to the harness; the model is one of ours, where none is named.

    Returns:
        The exit code.
    """
    try:
        need("lm_eval")
        from lm_eval.__main__ import cli_evaluate

        from qwenchat.evals import harness_model

        sys.argv = ["lm-eval", *with_model(arguments, harness_model.NAME)]
        cli_evaluate()
    except QwenchatError as error:
        from qwenchat.terminal import console

        console.say(told(error), "error")
        return error.exit_code
    return 0


def with_model(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments, with the model's class where tasks are named and it is not."""
    named = {argument.partition("=")[0] for argument in arguments}
    wants_one = bool(named & {"--tasks", "-t"}) and not named & {"--model", "-M"}
    return [*arguments, *(("--model", name) if wants_one else ())]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
