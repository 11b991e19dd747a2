"""The sampler, held to the logits processors and warpers of transformers, to its own odds and to its seed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwenchat.engine import torch_sampling
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_sampling import Sampler, draw, filtered_logits
from qwenchat.errors import PromptError, QwenchatError, UsageError

QWEN_VOCABULARY = 151_936
INFINITY = math.inf

SINGLE_FILTERS = [
    {"repetition_penalty": 1.1},
    {"repetition_penalty": 0.7},
    {"temperature": 0.6},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 50},
    {"top_p": 0.05},
    {"top_p": 0.8},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
]
COMBINED_FILTERS = [
    {"top_p": 0.8, "repetition_penalty": 1.1},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 1000, "min_p": 0.1},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def flat_row(size, seed):
    return torch.randn(size, generator=generator(seed))


def steep_row(size, seed):
    """Like a model's: a few probable tokens, anywhere in the vocabulary, and a long thin tail (Zipf)."""
    random = generator(seed)
    exponent = 1.3 + 1.2 * torch.rand((), generator=random)
    ranks = 1 + torch.randperm(size, generator=random)
    return 20 - exponent * ranks.log() + 0.1 * torch.randn(size, generator=random)


def row_with_ties(size, seed):
    return torch.randint(-4, 5, (size,), generator=generator(seed)).float()


def row_with_ruled_out_tokens(size, seed):
    row = 4 * torch.randn(size, generator=generator(seed))
    return row.masked_fill(torch.rand(size, generator=generator(seed + 1)) < 0.6, -INFINITY)


def equal_row(size, seed):
    return torch.full((size,), float(seed))


ROWS = [flat_row, steep_row, row_with_ties, row_with_ruled_out_tokens, equal_row]


def some_ids(size, seed):
    return torch.randint(0, size, (min(size, 200),), generator=generator(seed)).tolist()


def mask_of(ids, size):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.tensor(ids, dtype=torch.int64)] = True
    return mask


def filtered_by_transformers(row, params, ids):
    """What generate() would draw from: its processors in its order, without those that it leaves out."""
    steps = LogitsProcessorList()
    if params.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty)))
    if params.temperature != 1:
        steps.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(MinPLogitsWarper(params.min_p))
    return steps(torch.tensor([ids], dtype=torch.int64), row[None].clone())[0]


def assert_as_in_transformers(row, params, ids):
    ours = filtered_logits(row, params, mask_of(ids, len(row)))
    theirs = filtered_by_transformers(row, params, ids)
    # To the last bit, but for this: which of several equal logits top-p removes is left open there.
    assert torch.equal(ours.sort().values, theirs.sort().values)
    for tied in (theirs[ours != theirs], ours[ours != theirs]):
        assert len(tied[tied > -INFINITY].unique()) <= 1


# --- the filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", SINGLE_FILTERS + COMBINED_FILTERS, ids=str)
@pytest.mark.parametrize("make_row", ROWS)
def test_filters_keep_what_transformers_keeps(make_row, filters):
    params = SamplingParams(**filters)
    for seed, size in enumerate((2, 17, 1000, 1000, 20_000)):
        assert_as_in_transformers(make_row(size, seed), params, some_ids(size, seed))


@pytest.mark.parametrize("filters", COMBINED_FILTERS, ids=str)
@pytest.mark.parametrize("make_row", [flat_row, steep_row])
def test_filters_keep_what_transformers_keeps_of_the_whole_qwen_vocabulary(make_row, filters):
    for seed in range(2):
        row = make_row(QWEN_VOCABULARY, seed)
        assert_as_in_transformers(row, SamplingParams(**filters), some_ids(QWEN_VOCABULARY, seed))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    row=st.lists(st.floats(-30, 30, width=16), min_size=1, max_size=40),
    temperature=st.floats(0.05, 2),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.001, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.3, 2),
    data=st.data(),
)
def test_any_filters_together_keep_what_transformers_keeps(row, data, **filters):
    ids = data.draw(st.lists(st.integers(0, len(row) - 1), min_size=1, max_size=10))
    assert_as_in_transformers(torch.tensor(row), SamplingParams(**filters), ids)


@pytest.mark.parametrize("top_p", [0.1, 0.8, 0.95])
def test_top_p_keeps_the_same_tokens_whether_or_not_it_sorts_everything(top_p, monkeypatch):
    rows = [steep_row(QWEN_VOCABULARY, seed) for seed in range(4)]
    rows += [row_with_ties(500, seed) for seed in range(4)]
    quick = [torch_sampling._nucleus(row, top_p).sort().values for row in rows]
    monkeypatch.setattr(
        torch_sampling, "_TOP_P_ROUNDING", 1.0
    )  # no token is so probable: nothing to try first
    thorough = [torch_sampling._nucleus(row, top_p).sort().values for row in rows]
    assert all(map(torch.equal, quick, thorough))


def test_top_p_does_not_sort_everything_when_few_tokens_are_probable(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the whole vocabulary was sorted")

    row = torch.full((QWEN_VOCABULARY,), -20.0)
    row[[7, 70_000, 151_000]] = torch.tensor([2.0, 1.0, 0.0])
    monkeypatch.setattr(torch.Tensor, "sort", refuse)
    assert torch_sampling._nucleus(row, 0.8).tolist() == [7, 70_000]


def test_top_p_decides_as_transformers_where_rounding_decides():
    # Of n equal tokens, the sum reaches top_p = k/n at a token, give or take the last bit.
    for size in range(2, 50, 3):
        for count in range(1, size):
            params = SamplingParams(top_p=count / size)
            assert_as_in_transformers(equal_row(size, 0), params, [0])


def test_of_equal_logits_top_p_keeps_those_with_the_lower_ids():
    row = torch.tensor([0.0, 5.0, 0.0, 5.0, 5.0, 5.0])
    assert filtered_logits(row, SamplingParams(top_p=0.6), mask_of([], 6)).isfinite().tolist() == (
        [False, True, False, True, True, False]
    )


def test_top_k_keeps_all_that_tie_with_the_last():
    row = torch.tensor([1.0, 3.0, 1.0, 0.0])
    kept = filtered_logits(row, SamplingParams(top_k=2), mask_of([], 4))
    assert kept.tolist() == [1.0, 3.0, 1.0, -INFINITY]


@pytest.mark.parametrize("filters", [{"top_p": 1e-9}, {"min_p": 1.0}, {"top_k": 1}], ids=str)
def test_the_best_token_always_stays(filters):
    for row in (flat_row(1000, 0), steep_row(QWEN_VOCABULARY, 0), torch.zeros(1)):
        kept = filtered_logits(row, SamplingParams(**filters), mask_of([], len(row)))
        assert kept.isfinite().nonzero().flatten().tolist() == [int(row.argmax())]


def test_the_tiniest_top_p_keeps_one_of_many_equal_tokens():
    kept = filtered_logits(torch.zeros(2**17), SamplingParams(top_p=1e-9), mask_of([], 2**17))
    assert kept.isfinite().nonzero().flatten().tolist() == [0]


def test_the_logits_that_were_handed_in_stay_as_they_were():
    row = flat_row(100, 0)
    before = row.clone()
    params = SamplingParams(temperature=0.5, top_k=9, top_p=0.5, min_p=0.1, repetition_penalty=2.0)
    Sampler(params, 100, [1, 2])(row)
    assert torch.equal(row, before)


# --- temperature at its ends ---------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-8, 1e-30, 1e-45, 5e-324])
@pytest.mark.parametrize("offset", [0.0, -1e5, 1e5], ids=lambda x: f"offset={x}")
@pytest.mark.parametrize("others", [{}, {"top_p": 0.8}, {"top_k": 5, "min_p": 0.1}], ids=str)
def test_a_tiny_temperature_acts_as_greedy(temperature, offset, others):
    row = 3 * flat_row(1000, 1) + offset
    row[5] = -INFINITY
    best = Sampler(SamplingParams(temperature=0), 1000, [])(row)
    sampler = Sampler(SamplingParams(temperature=temperature, seed=0, **others), 1000, [])
    assert [sampler(row) for _ in range(5)] == [best] * 5


# --- greedy --------------------------------------------------------------------------------------


def test_greedy_takes_the_lowest_id_of_the_best():
    assert Sampler(SamplingParams(temperature=0), 5, [])(torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0])) == 1


def test_greedy_is_the_same_with_any_seed_and_without():
    rows = [flat_row(500, seed) for seed in range(20)]
    replies = []
    for seed in (None, 0, 1):
        sampler = Sampler(SamplingParams(temperature=0, seed=seed), 500, [])
        replies.append([sampler(row) for row in rows])
    assert replies == [[int(row.argmax()) for row in rows]] * 3


def test_greedy_penalises_the_prompt_and_its_own_reply_as_transformers_does():
    row, ids = steep_row(50, 3), [4, 9, 9]
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=1.2), 50, ids)
    for _ in range(60):
        expected = int(RepetitionPenaltyLogitsProcessor(1.2)(torch.tensor([ids]), row[None])[0].argmax())
        assert sampler(row) == expected
        ids = [*ids, expected]
    assert len(set(ids)) > 5


# --- the draw ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 1.3, "top_k": 30},
        {"temperature": 0.8, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_frequencies_of_draws_fit_the_filtered_distribution(filters):
    # Every id is in the prompt, so that the penalty is on all of them from the first draw to the last.
    size, draws, prompt = 100, 20_000, list(range(100))
    row = flat_row(size, 5)
    params = SamplingParams(seed=1234, **filters)
    sampler = Sampler(params, size, prompt)
    observed = torch.bincount(torch.tensor([sampler(row) for _ in range(draws)]), minlength=size)

    expected = draws * filtered_by_transformers(row, params, prompt).double().softmax(-1)
    possible = expected > 0
    assert not observed[~possible].any()
    assert possible.sum() > 20
    assert expected[possible].min() > 5  # what the chi-square test asks of every bin
    chi_square = ((observed - expected) ** 2 / expected)[possible].sum()
    degrees_of_freedom = possible.sum() - 1
    by_chance = torch.special.gammaincc(degrees_of_freedom.double() / 2, chi_square / 2)
    assert by_chance > 0.001


def test_a_draw_goes_through_the_ids_in_proportion_to_their_probability():
    row = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    assert [draw(row, u) for u in (0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, 0.99)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_draw_never_yields_a_removed_token_even_at_the_ends():
    row = torch.tensor([-INFINITY, -INFINITY, 1.0, -INFINITY, 1.5, -INFINITY])
    almost_one = math.nextafter(1.0, 0.0)
    assert [draw(row, u) for u in (0.0, almost_one)] == [2, 4]


def test_a_draw_can_yield_a_very_rare_token_late_in_the_vocabulary():
    row = torch.full((QWEN_VOCABULARY,), math.log(1e-9))
    row[0] = 0.0
    assert draw(row, 1 - 1e-10) == QWEN_VOCABULARY - 1


# --- seeds ---------------------------------------------------------------------------------------


def reply(seed, length=40):
    sampler = Sampler(SamplingParams(seed=seed), 1000, [])
    return [sampler(flat_row(1000, step)) for step in range(length)]


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    assert reply(7) == reply(7)
    assert reply(7) != reply(8)


def test_a_seed_does_not_depend_on_torchs_global_generator_nor_move_it():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = reply(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert reply(7) == first


def test_two_samplers_with_the_same_seed_do_not_disturb_each_other():
    one, other = (Sampler(SamplingParams(seed=7), 1000, []) for _ in range(2))
    alternating = [[sampler(flat_row(1000, step)) for sampler in (one, other)] for step in range(40)]
    assert alternating == [[token, token] for token in reply(7)]


def test_without_a_seed_a_fresh_one_is_drawn_and_repeats_the_reply():
    torch.manual_seed(0)
    sampler = Sampler(SamplingParams(), 1000, [])
    tokens = [sampler(flat_row(1000, step)) for step in range(40)]
    torch.manual_seed(0)
    assert Sampler(SamplingParams(), 1000, []).params.seed != sampler.params.seed
    assert reply(sampler.params.seed) == tokens


def test_the_seed_that_was_asked_for_is_the_one_that_is_told():
    assert Sampler(SamplingParams(seed=2**63 - 1), 10, []).params.seed == 2**63 - 1


# --- what the model may hand over ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_of_any_float_dtype_choose_as_their_float32_values_do(dtype, temperature):
    rows = [flat_row(1000, seed).to(dtype) for seed in range(60)]
    params = SamplingParams(temperature=temperature, top_p=0.9, repetition_penalty=1.1, seed=3)
    given, converted = (Sampler(params, 1000, range(500)) for _ in range(2))
    assert [given(row) for row in rows] == [converted(row.float()) for row in rows]


@pytest.mark.parametrize("filters", [{"temperature": 0}, {}, {"top_p": 0.8}, {"top_k": 3}], ids=str)
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_nan_logits_are_an_error_that_says_so(filters, penalty):
    row = flat_row(100, 0)
    row[77] = math.nan
    sampler = Sampler(SamplingParams(repetition_penalty=penalty, **filters), 100, [77])
    with pytest.raises(QwenchatError, match=r"the model produced NaN.*checkpoint.*dtype"):
        sampler(row)


@pytest.mark.parametrize("temperature", [0.0, 1e-8, 1.0])
@pytest.mark.parametrize("row", [[0.0, INFINITY, 1.0], [-INFINITY] * 3], ids=["infinite", "none possible"])
def test_logits_without_a_finite_best_are_an_error_that_says_so(row, temperature):
    with pytest.raises(QwenchatError, match="the model produced infinite logits"):
        Sampler(SamplingParams(temperature=temperature), 3, [])(torch.tensor(row))


@pytest.mark.parametrize("shape", [(9,), (11,), (1, 10)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected logits \[10\]"):
        Sampler(SamplingParams(), 10, [])(torch.zeros(shape))


@pytest.mark.parametrize("token", [-1, 10])
def test_a_prompt_id_outside_the_vocabulary_is_refused(token):
    with pytest.raises(PromptError, match=f"token id {token} is outside the vocabulary"):
        Sampler(SamplingParams(), 10, [3, token, 4])


# --- the parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [-0.1, 2.01, 99, math.nan, INFINITY, True, "1", None, 10**400]),
        ("top_k", [-1, 2**31, 2.0, True, "5", None]),
        ("top_p", [0, 0.0, -0.5, 1.01, math.nan, True, "0.8", None]),
        ("min_p", [-0.01, 1.01, math.nan, False, "0", None]),
        ("repetition_penalty", [0, 2.01, -1.1, math.nan, INFINITY, True, "1.1", None]),
        ("seed", [-1, 2**63, 1.0, True, "7"]),
    ],
)
def test_a_value_out_of_range_is_a_usage_error_that_names_it(name, values):
    for value in values:
        with pytest.raises(UsageError) as caught:
            SamplingParams(**{name: value})
        assert str(caught.value).startswith(f"{name} is {value!r}, expected a ")
        assert "\n" not in str(caught.value)


def test_the_ends_of_every_range_are_allowed():
    SamplingParams(temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=0.01, seed=0)
    SamplingParams(temperature=2, top_k=2**31 - 1, top_p=1, min_p=1, repetition_penalty=2, seed=2**63 - 1)


def test_a_top_k_beyond_the_vocabulary_keeps_everything():
    row = flat_row(10, 0)
    assert torch.equal(filtered_logits(row, SamplingParams(top_k=11), mask_of([], 10)), row)
