"""The CPU engine: weights that stay in their codes, and kernels compiled once for this processor.

    layout    the tables that Python writes and the kernels read
    memory    numpy arrays, by address
    blocks    how quantised matrices lie in memory
    support   which models the kernels can run
    reading   a checkpoint's layers in codes brought into blocks while they are read
    prepared  these blocks, kept in a file
    screen    the output layer in codes beside its floats
    work      the weights' and the step's tables
    chunk     the memory that many tokens are worked with
    cache     keys, values and the tables of their positions
    codes_model, runner: a model with all layers in codes, without torch

    linear    with torch: layers brought into blocks while they are loaded
    assembly  the model of these
    model     a model that decodes with the step and prefills with torch
    plain     plain torch, where the kernels cannot be used

    operations what the kernels' words are made of: Numba's types, LLVM's instructions
    vector    the kernels' words: 16 numbers at a time, memory
    tiles     products of several tokens whose sums stay in registers
    atomics   words that threads share
    counters  work that threads take piece by piece
    products  a matrix times a token
    pieces    products of a token or a few, whose rows the threads take piece by piece
    gemm      a matrix in codes times many tokens
    rows      what is done to a row by itself
    output    the output layer's rows in codes, and some of them by themselves
    repack    a matrix brought into its blocks, and out of them
    attention a token's attention over the cache
    flash     many tokens' attention
    prefill   many tokens through one layer
    step      one token through the whole model

    compile   from these to machine code
    compiled  the machine code, kept in the cache folder
    team      the threads that run it
    cores     how many of them

Only the child process that runs ``compile`` imports Numba; everybody else calls its machine code.
"""
