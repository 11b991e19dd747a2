"""The CPU engine: weights that stay in their codes, and kernels compiled once for this processor.

    layout    the tables that Python writes and the kernels read
    blocks    how quantised matrices lie in memory
    linear    a checkpoint's layers brought there while they are loaded
    assembly  the model of such layers, and which models there can be
    model     the model that decodes with the step and prefills with torch
    plain     plain torch, where the kernels cannot be used

    operations what the kernels' words are made of: Numba's types, LLVM's instructions
    vector    the kernels' words: 16 numbers at a time, memory
    atomics   words that threads share
    products  a matrix times a token
    repack    a matrix brought into its blocks, and out of them
    attention a token's attention over the cache
    step      one token through the whole model

    compile   from these seven to machine code
    compiled  the machine code, kept in the cache folder
    team      the threads that run it
    cores     how many of them

Only the child process that runs ``compile`` imports Numba; everybody else calls its machine code.
"""
