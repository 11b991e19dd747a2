"""Looks at everything that a chat depends on, and says whether it would work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from qwenchat.doctor import confinement, surroundings
from qwenchat.doctor.findings import Finding, ModelFit, Report
from qwenchat.errors import ConfigError, QwenchatError, shorten
from qwenchat.humanize import in_gib
from qwenchat.i18n.language import tr
from qwenchat.models import fitting, published
from qwenchat.models.progress import Progress
from qwenchat.models.published import Published
from qwenchat.sandbox.trial.run import Outcome
from qwenchat.settings import sources
from qwenchat.settings.prompts import system_prompt


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
    progress(tr("trying the sandbox"), None)
    sandbox, attempts = confinement.sandbox()
    around.append(sandbox)
    progress(tr("importing torch"), None)
    findings = [surroundings.program(), torch := surroundings.torch()]
    if torch.state == "bad":
        return _report([*findings, *around], (), attempts, QwenchatError(torch.text, torch.hint))
    from qwenchat.doctor.machine import Machine

    answer = ""
    with closing(Machine(resolved.settings, progress, notice)) as machine:
        findings += [*machine.gpus(), machine.processor(), machine.memory(), *around]
        models = tuple(machine.outlook(model) for model in published.KNOWN)
        findings.append(_best(models))
        try:
            outlook = machine.chat()
            answer = outlook.text
            findings.append(_prompt(system_prompt(resolved.settings), outlook.system))
        except QwenchatError as error:
            wrong = wrong or error
    return _report(findings, models, attempts, wrong, answer)


def _prompt(yours: str | None, own: str | None) -> Finding:
    """The system prompt that a chat would begin with, and whose it is."""
    in_force = (own or "") if yours is None else yours
    if not in_force:
        text = tr("there is no system prompt")
        if yours is None:
            text = tr("there is no system prompt; the model has none of its own")
    elif yours is None:
        text = tr("the model's own system prompt: {text}", text=shorten(in_force))
    elif own is None:
        text = tr(
            "yours, before the first message, as the model has no place for one: {text}",
            text=shorten(in_force),
        )
    else:
        text = tr("your system prompt: {text}", text=shorten(in_force))
    whose = "settings" if yours is not None else "model"
    return Finding("prompt", "good", text, facts={"system": in_force, "of": whose})


def _best(models: Sequence[ModelFit]) -> Finding:
    """The published chat that would do best here."""
    first = {each.model: each.fits[0] for each in models}
    device, room = next((fit.device, fit.free) for fit in first.values())
    cuda = device != "cpu"
    found = fitting.best(first, lambda model: first[model].needed, room, cuda=cuda)
    if found is None:
        return Finding("best", "note", tr("no published chat fits {device}", device=device))
    fit = first[found]
    text = tr(
        "{model}: {needed} of {free} GiB on {device}, {kernels}",
        model=found.short,
        needed=in_gib(fit.needed),
        free=in_gib(fit.free),
        device=device,
        kernels=fit.kernels,
    )
    hint = (
        "" if _is_here(found, models) else tr("qwenchat models pull {name} downloads it", name=found.to_pull)
    )
    return Finding("best", "good", text, hint, {"name": found.name, "device": device})


def _is_here(model: Published, models: Sequence[ModelFit]) -> bool:
    """True if a model has been found on this machine."""
    return any(each.folder is not None for each in models if each.model is model)


def _report(
    findings: Sequence[Finding],
    models: tuple[ModelFit, ...],
    attempts: tuple[Outcome, ...],
    wrong: QwenchatError | None,
    answer: str = "",
) -> Report:
    if wrong is None:
        chat = Finding("chat", "good", answer)
        if any(finding.area == "sessions" and finding.state == "bad" for finding in findings):
            chat = Finding("chat", "note", answer, tr("it is not saved"))
        return Report(tuple(findings), models, attempts, chat, 0)
    text = tr("a chat would fail: {message}", message=wrong.message)
    chat = Finding("chat", "bad", text, wrong.hint)
    return Report(tuple(findings), models, attempts, chat, wrong.exit_code)
