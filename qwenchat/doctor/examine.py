"""Looks at everything that a chat depends on, and says whether it would work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from qwenchat.doctor import surroundings
from qwenchat.doctor.findings import Finding, ModelFit, Report
from qwenchat.errors import ConfigError, QwenchatError
from qwenchat.i18n.language import tr
from qwenchat.models import published
from qwenchat.models.progress import Progress
from qwenchat.settings import sources


def examine(flags: Mapping[str, object], *, progress: Progress, notice: Callable[[str], None]) -> Report:
    """Looks at everything that a chat depends on.

    Args:
        flags: settings of the command line, as for :func:`qwenchat.settings.sources.load_settings`.
        progress: told what is looked at.
        notice: told in a line what a chat would say too.
    """
    wrong: QwenchatError | None = None
    try:
        resolved = sources.load_settings(flags)
        settings = surroundings.settings(resolved)
    except ConfigError as error:
        wrong, settings = error, Finding("settings", "bad", error.message, error.hint)
        resolved = sources.defaults()  # the rest is looked at with the defaults
    progress(tr("asking the Hub"), None)
    around = [settings, *surroundings.places(), surroundings.the_hub(), surroundings.auto_gptq()]
    progress(tr("importing torch"), None)
    findings = [surroundings.program(), torch := surroundings.torch()]
    if torch.state == "bad":
        return _report([*findings, *around], (), QwenchatError(torch.text, torch.hint))
    from qwenchat.doctor.machine import Machine

    answer = ""
    with closing(Machine(resolved.settings, progress, notice)) as machine:
        findings += [*machine.gpus(), machine.processor(), machine.memory(), *around]
        models = tuple(machine.outlook(model) for model in published.KNOWN)
        try:
            answer = machine.chat()
        except QwenchatError as error:
            wrong = wrong or error
    return _report(findings, models, wrong, answer)


def _report(
    findings: Sequence[Finding], models: tuple[ModelFit, ...], wrong: QwenchatError | None, answer: str = ""
) -> Report:
    if wrong is None:
        chat = Finding("chat", "good", answer)
        if any(finding.area == "sessions" and finding.state == "bad" for finding in findings):
            chat = Finding("chat", "note", answer, tr("it is not saved"))
        return Report(tuple(findings), models, chat, 0)
    text = tr("a chat would fail: {message}", message=wrong.message)
    return Report(tuple(findings), models, Finding("chat", "bad", text, wrong.hint), wrong.exit_code)
