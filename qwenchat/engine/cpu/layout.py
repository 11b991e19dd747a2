"""The tables that Python writes and the kernels read: int64 words, by their index.

An address is that of memory which outlives the table; floats are float32 unless said otherwise.
"""

from __future__ import annotations

LANES = 16
"""Numbers that the kernels take at a time; groups are filled up to whole ones."""
BLOCK = 2 * LANES
"""Rows of a quantised matrix that lie together."""

# A matrix.
(
    KIND,  # one of the kinds below
    ROWS,
    COLUMNS,
    DATA,  # address
    SCALES,  # address, or 0
    FLOAT16_SCALES,  # 1 where they are float16, 0 where float32
    ZEROS,  # address of int32, or 0
    BOUNDS,  # address of int64 [groups + 1]
    GROUPS,
    PERM,  # address of int32 [columns], -1 for a column of no input; or 0
    BIAS,  # address, or 0
    MINIMUMS,  # address of what code 0 stands for, float16 or float32 as the scales are; or 0
    MATRIX_WORDS,
) = range(13)

# Kinds of a matrix: codes in blocks, or rows of floats.
CODES8, CODES4, FLOAT16, BFLOAT16, FLOAT32 = range(5)

# Kinds of a KV cache; of these EIGHT has scales.
CACHE_FLOAT32, CACHE_BFLOAT16, CACHE_INT8 = range(3)

# A layer: addresses. The cache's are those of the layer's part, [kv_heads, capacity, head_dim].
(
    ATTENTION_NORM,
    W_QKV,  # of matrices, as all that begin with W
    Q_NORM,  # [head_dim], or 0
    K_NORM,
    W_OUTPUT,
    MLP_NORM,
    W_GATE,
    W_UP,
    W_DOWN,
    KEYS,
    VALUES,
    KEY_SCALES,  # float32 [kv_heads, capacity], or 0
    VALUE_SCALES,
    LAYER_WORDS,
) = range(14)

# A step: the model, where it stands, and what it works with.
(
    LAYERS,  # address of the layers' tables
    NUM_LAYERS,
    HIDDEN,
    WIDTH,  # of the residual stream or of all heads together, the larger
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    EPSILON,  # address of a float64
    EMBEDDING,  # of a matrix, or 0 where X holds the token's row
    NORM,
    LM_HEAD,
    COS,  # [capacity, head_dim]
    SIN,
    LOGN,  # [capacity], or 0
    CACHE_KIND,
    CAPACITY,
    TOKEN,
    POSITION,
    X,  # the residual stream [hidden]
    QKV,  # [(heads + 2 * kv_heads) * head_dim]
    UP,  # [mlp]
    GATE,  # [mlp]
    LAST,  # the token behind the last norm [hidden]
    LOGITS,  # [vocab_size]
    PARTS,  # each thread's attention: [heads, head_dim], and two numbers a head
    PART_BYTES,
    SCRATCH,  # each thread's own
    SCRATCH_BYTES,
    COUNTERS,  # int64 [1 + STEP_PHASES * layers + 1, COUNTER_WORDS], all 0, as a chunk's
    STEP_WORDS,
) = range(30)
STEP_PHASES = 6
"""Of a layer."""

# Many tokens through a layer: the chunk, and what it is worked with.
(
    CHUNK_STEP,  # address of the step's table: the model, the cache, the rotary tables
    CHUNK_TOKENS,
    CHUNK_START,  # the positions that the cache holds before them
    CHUNK_EXACT,  # 1 for digits as exact as float32, 0 for 16 bits
    CHUNK_X,  # float32 [tokens, hidden], the residual stream
    CHUNK_QKV,  # float32 [tokens, (heads + 2 * kv_heads) * head_dim], rows of whole blocks; here and below
    CHUNK_MIXED,  # float32 [tokens, heads * head_dim]
    CHUNK_UP,  # float32 [tokens, mlp]
    CHUNK_GATE,
    CHUNK_DIGITS,  # tokens as whole numbers, for the matrix that is next
    CHUNK_UNITS,  # of each group of these the unit, and the sums
    CHUNK_DIGITS_2,  # the same for a second matrix, whose inputs are in another order
    CHUNK_UNITS_2,
    CHUNK_SCRATCH,  # each thread's own
    CHUNK_SCRATCH_BYTES,
    CHUNK_COUNTERS,  # int64 [PHASES, 16], all 0: the work taken, and at 8 the work done, of each phase
    CHUNK_WORDS,
) = range(17)
PHASES = 10
"""Of a layer, at most."""
COUNTER_WORDS = 16

# A team of threads. The words that several of them write stand 64 bytes apart.
TEAM_THREADS, TEAM_YIELD = 0, 1  # the number; the address of what gives up the processor for a moment
TEAM_ARRIVED, TEAM_PHASE, TEAM_NUMBER, TEAM_PARKED = 8, 16, 24, 32
TEAM_JOB = 2  # address of the job with that number; 0 for the threads to end
APART = 8  # words between one thread's TEAM_PARKED and the next one's
MOST_THREADS = 62

# A job: what is to be done, and its arguments.
(
    JOB_STEP, JOB_MULTIPLY, JOB_FILL, JOB_UNPACK, JOB_LAYER, JOB_MULTIPLY_MANY, JOB_SOME_ROWS, JOB_ROUND,
) = range(8)  # fmt: skip
JOB_KIND, JOB_TEAM, JOB_ARGUMENTS = 0, 1, 2
JOB_WORDS = 10

# What the compiled function is asked to do.
BEGIN, WORK, SERVE = range(3)
