"""The CPU engine: weights that stay in their codes, and kernels compiled once for this processor.

    layout    the tables that Python writes and the kernels read
    blocks    how quantised matrices lie in memory
    packing   a checkpoint's layers brought there while they are loaded
    model     the model that decodes with the step and prefills with torch

    vector    the kernels' words: 16 numbers at a time, memory, atomics
    products  a matrix times a token
    attention a token's attention over the cache
    step      one token through the whole model

    compile   from these four to machine code
    compiled  the machine code, kept in the cache folder
    team      the threads that run it
    cores     how many of them

Only the child process that runs ``compile`` imports Numba; everybody else calls its machine code.
"""
