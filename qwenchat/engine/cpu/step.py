"""A token through the whole model in one call, or a few, and the barrier at the end of every job.

Phases follow one another; in each the threads take piece after piece from a counter: rows of a product, parts
of an attention. A thread that the system has stopped holds up the others only by the piece that it is at.
What is small, like a norm, every thread does for itself.
"""

from __future__ import annotations

from qwenchat.engine.cpu.atomics import call, fetch_add, pause, peek, publish, swap
from qwenchat.engine.cpu.attention import attend, combine, store_token
from qwenchat.engine.cpu.counters import counter, done, settle, take
from qwenchat.engine.cpu.layout import (
    APART,
    ATTENTION_NORM,
    BEGIN,
    BFLOAT16,
    COLUMNS,
    COUNTERS,
    DATA,
    EMBEDDING,
    EPSILON,
    FLOAT16,
    FLOAT32,
    HIDDEN,
    JOB_ARGUMENTS,
    JOB_FILL,
    JOB_KIND,
    JOB_LAYER,
    JOB_MULTIPLY,
    JOB_MULTIPLY_MANY,
    JOB_ROUND,
    JOB_SOME_ROWS,
    JOB_STEP,
    JOB_TEAM,
    KIND,
    LAST,
    LAYER_WORDS,
    LAYERS,
    LM_HEAD,
    LOGITS,
    MLP_NORM,
    NORM,
    NUM_LAYERS,
    QKV,
    TEAM_ARRIVED,
    TEAM_JOB,
    TEAM_NUMBER,
    TEAM_PARKED,
    TEAM_PHASE,
    TEAM_THREADS,
    TEAM_YIELD,
    TOKEN,
    UP,
    W_DOWN,
    W_OUTPUT,
    W_QKV,
    WORK,
    X,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.output import round_rows, some_rows
from qwenchat.engine.cpu.pieces import OWN, multiply_all, multiply_mlp, own_of, scratch_of
from qwenchat.engine.cpu.prefill import multiply_many, prefill_layer
from qwenchat.engine.cpu.products import multiply
from qwenchat.engine.cpu.repack import fill, unpack
from qwenchat.engine.cpu.vector import (
    LANES,
    bfloat16s,
    double,
    every,
    float16s,
    floats,
    fma,
    mul,
    put,
    put_word,
    square_root,
    total,
    word,
)

PAUSES_AT_BARRIER = 4000
"""Looks before the processor is given up for a moment: 0.1 ms, far longer than a running thread takes."""
_LINE = 4 * LANES


@kernel
def step(tokens, count, team, thread):
    """The logits after some tokens, of one sequence or of several, each to the bit what it is by itself.

    Weights are read from memory once: a block of rows meets token after token while it is near. What a
    thread makes for itself, like a norm, counts only if it gets a piece of what that is for: then nobody has
    gone on.

    Args:
        tokens: the addresses of their tables, int64 [count]; each has memory of its own, and a cache, which
            may be the others' too, behind whom it then comes.
    """
    threads = word(team, TEAM_THREADS)
    p = word(tokens, 0)
    phase = word(p, COUNTERS)
    embed_all(tokens, count, phase, team)
    for i in range(word(p, NUM_LAYERS)):
        at = 8 * LAYER_WORDS * i
        layer = word(p, LAYERS) + at  # for the weights, which all share
        phase = counter(phase, 1)
        norm_all(tokens, count, word(layer, ATTENTION_NORM), thread)
        multiply_all(tokens, count, word(layer, W_QKV), OWN, QKV, False, phase, team, thread)
        phase = counter(phase, 1)
        if count > 1:  # what is stored is seen by the tokens behind, whoever works on these
            store_all(tokens, count, at, phase, team, thread)
        phase = counter(phase, 1)
        attend_all(tokens, count, at, phase, team, thread)
        for t in range(count):
            combine(word(tokens, t), own_of(word(tokens, t), thread), threads)
        phase = counter(phase, 1)
        multiply_all(tokens, count, word(layer, W_OUTPUT), OWN, X, True, phase, team, thread)
        phase = counter(phase, 1)
        norm_all(tokens, count, word(layer, MLP_NORM), thread)
        multiply_mlp(tokens, count, layer, phase, team, thread)
        phase = counter(phase, 1)
        multiply_all(tokens, count, word(layer, W_DOWN), UP, X, True, phase, team, thread)
    norm_all(tokens, count, word(p, NORM), thread)
    if thread == 0:
        norm(p, word(p, X), word(p, NORM), word(p, LAST))
    multiply_all(tokens, count, word(p, LM_HEAD), OWN, LOGITS, False, counter(phase, 1), team, thread)


@kernel
def embed_all(tokens, count, phase, team):
    t = take(phase)
    while t < count:
        embed(word(tokens, t), word(word(tokens, t), X))
        t = done(phase)
    settle(phase, count, team)


@kernel
def store_all(tokens, count, at, phase, team, thread):
    t = take(phase)
    while t < count:
        q = word(tokens, t)
        store_token(q, word(q, LAYERS) + at, scratch_of(q, thread))
        t = done(phase)
    settle(phase, count, team)


@kernel
def attend_all(tokens, count, at, phase, team, thread):
    """The attention in as many parts as there are threads, whoever does which.

    Args:
        at: where the layer is among those of each token.
    """
    threads = word(team, TEAM_THREADS)
    i = take(phase)
    while i < threads:
        for t in range(count):
            q = word(tokens, t)
            layer = word(q, LAYERS) + at
            attend(q, layer, own_of(q, thread), scratch_of(q, thread), count > 1, i, threads)
        i = done(phase)
    settle(phase, threads, team)


@kernel
def norm_all(tokens, count, weight, thread):
    for t in range(count):
        p = word(tokens, t)
        norm(p, word(p, X), weight, own_of(p, thread))


@kernel
def embed(p, x):
    """The token's row of the embedding, if it is not there already. Every thread stores the same."""
    table, token = word(p, EMBEDDING), word(p, TOKEN)
    if table == 0:
        return
    columns, kind = word(table, COLUMNS), word(table, KIND)
    size = 4 if kind == FLOAT32 else 2
    row = word(table, DATA) + size * columns * token
    for i in range(0, columns, LANES):
        if kind == FLOAT16:
            put(x + 4 * i, float16s(row + size * i))
        elif kind == BFLOAT16:
            put(x + 4 * i, bfloat16s(row + size * i))
        else:
            put(x + 4 * i, floats(row + size * i))


@kernel
def norm(p, x, weight, out):
    """RMSNorm of the residual stream."""
    hidden = word(p, HIDDEN)
    squares = every(0.0)
    for i in range(0, 4 * hidden, _LINE):
        squares = fma(floats(x + i), floats(x + i), squares)
    inverse = 1.0 / square_root(total(squares) / hidden + double(word(p, EPSILON)))
    for i in range(0, 4 * hidden, _LINE):
        put(out + i, mul(mul(floats(x + i), every(inverse)), floats(weight + i)))


@kernel
def barrier(team, threads):
    """Waits until every thread of the team is here."""
    if threads == 1:
        return
    phase = peek(team + 8 * TEAM_PHASE)
    if fetch_add(team + 8 * TEAM_ARRIVED, 1) == threads - 1:
        publish(team + 8 * TEAM_ARRIVED, 0)
        publish(team + 8 * TEAM_PHASE, phase + 1)
        return
    looks = 0
    while peek(team + 8 * TEAM_PHASE) == phase:
        looks += 1
        if looks < PAUSES_AT_BARRIER:
            pause()
        else:
            call(word(team, TEAM_YIELD))


@kernel
def work(job, thread):
    """A thread's part of a job."""
    team, kind = word(job, JOB_TEAM), word(job, JOB_KIND)
    a = job + 8 * JOB_ARGUMENTS
    threads = word(team, TEAM_THREADS)
    if kind == JOB_STEP:
        step(word(a, 0), word(a, 1), team, thread)
    elif kind == JOB_MULTIPLY:
        own = word(a, 2) + word(a, 3) * thread
        multiply(word(a, 0), word(a, 1), own, word(a, 4), False, thread, threads)
    elif kind == JOB_LAYER:
        prefill_layer(word(a, 0), word(a, 1), team, thread)
    elif kind == JOB_MULTIPLY_MANY:
        multiply_many(word(a, 0), word(a, 1), word(a, 2), word(a, 3), word(a, 4), team, thread)
    elif kind == JOB_SOME_ROWS:
        some_rows(word(a, 0), word(a, 1), word(a, 2), word(a, 3), word(a, 4), thread, threads)
    elif kind == JOB_ROUND:
        round_rows(word(a, 0), word(a, 1), word(a, 2), word(a, 3), thread, threads)
    elif kind == JOB_FILL:
        fill(word(a, 0), word(a, 1), word(a, 2), word(a, 3), thread, threads)
    else:
        unpack(word(a, 0), word(a, 1), word(a, 2), word(a, 3), word(a, 4), thread, threads)
    barrier(team, threads)


@kernel
def begin(team, job):
    """Gives the team a new job, this thread's part not done yet; a bit for each thread that must be woken."""
    put_word(team + 8 * TEAM_JOB, job)
    fetch_add(team + 8 * TEAM_NUMBER, 1)
    asleep = 0
    for thread in range(1, word(team, TEAM_THREADS)):
        asleep += swap(team + 8 * (TEAM_PARKED + APART * thread), 0) << thread
    return asleep


@kernel
def serve(team, thread, seen, looks):
    """Does jobs that come after the one numbered ``seen``, as long as one comes within so many looks.

    Returns:
        The number of the last job, once the thread counts as parked and must be woken; -1 for it to end.
    """
    while True:
        number = next_job(team, thread, seen, looks)
        if number == seen:
            return seen
        seen = number
        job = word(team, TEAM_JOB)
        if job == 0:
            return -1
        work(job, thread)


@kernel
def next_job(team, thread, seen, looks):
    """The number of the next job; ``seen`` if the thread is parked."""
    for i in range(looks):
        number = peek(team + 8 * TEAM_NUMBER)
        if number != seen:
            return number
        if i % PAUSES_AT_BARRIER < PAUSES_AT_BARRIER - 1:
            pause()
        else:  # somebody may want the processor who will give the next job
            call(word(team, TEAM_YIELD))
    place = team + 8 * (TEAM_PARKED + APART * thread)
    swap(place, 1)
    number = peek(team + 8 * TEAM_NUMBER)
    # Who began a job meanwhile may have seen it parked: then a wake-up is on its way, and has to be taken.
    if number != seen and swap(place, 0) == 1:
        return number
    return seen


def enter(task, a, b, c, d):
    """The one function that is called from outside."""
    if task == BEGIN:
        return begin(a, b)
    if task == WORK:
        work(a, b)
        return 0
    return serve(a, b, c, d)
