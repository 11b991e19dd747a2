"""The output layer in codes: how far off its logits are, and the few true ones that are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from qwenchat.engine.cpu.blocks import Arena
from qwenchat.engine.cpu.layout import JOB_SOME_ROWS
from qwenchat.engine.cpu.linear import of_floats
from qwenchat.engine.cpu.memory import address
from qwenchat.engine.cpu.runner import CodesRunner
from qwenchat.engine.cpu.screen import make_screen, screen_bytes
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.generate import Engine
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.screened import Screened
from tests.engine.cpu.test_codes_model import IDS, in_codes
from tests.engine.cpu.test_products import product
from tests.places import GOLDEN

Teams = Callable[[int], Team]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (70, 208), (33, 544)])
def test_a_logit_of_the_codes_is_within_its_margin(
    teams: Teams, dtype: torch.dtype, rows: int, columns: int
) -> None:
    weight = torch.randn(rows, columns) * torch.logspace(-4, 4, rows)[:, None]
    weight[3], weight[4, 7] = 0, 100 * weight[4, 7]
    weight = weight.to(dtype)
    head = of_floats(weight)
    screen = make_screen(head, teams(2), Arena())
    assert screen.is_sound(rows, columns)
    assert screen.codes.nbytes + screen.margins.nbytes == screen_bytes(rows, columns)
    dense = torch.from_numpy(screen.codes.dense())[:rows].double()
    assert (dense - weight.double()).abs().max() <= weight.double().abs().max() / 250
    off = (dense - weight.double()).norm(dim=1)
    assert (off <= torch.from_numpy(screen.margins)).all()
    assert torch.from_numpy(screen.margins)[5] < 0.02 * weight[5].double().norm()
    worst = dense - weight.double()  # tokens along what was rounded off
    for x in (*worst[:8], *torch.randn(8, columns)):
        x = x.float()
        near, true = product(teams(2), screen.codes, x)[:rows], product(teams(2), head, x)
        assert ((near - true).abs() <= torch.from_numpy(screen.margins) * x.double().norm()).all()


def test_of_a_row_that_holds_no_number_nothing_is_known(teams: Teams) -> None:
    weight = torch.randn(64, 64)
    weight[5, 3], weight[9, 60] = np.nan, np.inf
    screen = make_screen(of_floats(weight), teams(1), Arena())
    assert np.isinf(screen.margins).nonzero()[0].tolist() == [5, 9]
    assert product(teams(1), screen.codes, torch.randn(64)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_some_rows_are_to_the_bit_those_of_the_whole_product(teams: Teams, dtype: torch.dtype) -> None:
    head, x = of_floats(torch.randn(70, 208).to(dtype)), torch.randn(208)
    whole = product(teams(1), head, x).numpy()
    for ids in ([69], [3, 3, 0], [0, 1, 2, 69], list(range(70))):
        wanted, out = np.array(ids, np.int64), np.full(-(-len(ids) // 4) * 4 + 1, np.nan, np.float32)
        teams(3).do(JOB_SOME_ROWS, head.descriptor, address(wanted), len(ids), x.data_ptr(), address(out))
        assert np.array_equal(out[: len(ids)], whole[ids])
        assert np.isnan(out[-1])


@pytest.mark.parametrize("name", ["gptq_int8", "gptq_int4_asym_g32"])
def test_a_token_runs_with_bounds_of_its_true_logits(own_teams: Teams, name: str) -> None:
    model = in_codes(GOLDEN / name, own_teams(2))
    caches = model.new_cache(20), model.new_cache(20)
    for token in IDS[:20]:
        true, row = model.step(caches[0], token).copy(), model.step_screened(caches[1], token)
        assert isinstance(row, Screened)
        assert (np.abs(row.near - true) <= row.margins * row.norm).all()
        assert np.array_equal(row.whole(), true)
        assert np.array_equal(row.rows(np.array([7, 300, 2])), true[[7, 300, 2]])
        for cache in caches:
            cache.ids.append(token)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"temperature": 0, "repetition_penalty": 1.2}, {"top_k": 5, "top_p": 0.9}],
    ids=str,
)
def test_a_reply_is_the_one_that_all_true_logits_give(own_teams: Teams, settings: dict[str, float]) -> None:
    params, replies = SamplingParams(**settings, seed=1), []
    for screened in (True, False):
        runner = CodesRunner(in_codes(GOLDEN / "gptq_int8", own_teams(2), exact=False))
        if not screened:
            runner.model.step_screened = lambda cache, token, m=runner.model: m.step(cache, token).copy()
        replies.append(list(Engine(runner, context=64).generate(IDS[:20], params, max_new_tokens=40)))
    assert replies[0] == replies[1]
