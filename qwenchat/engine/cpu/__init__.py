"""The CPU engine: weights that stay in their codes, and kernels compiled once for this processor.

    blocks    how quantised matrices lie in memory
    vector    16 numbers at a time, for the kernels
    products  a matrix times a token
    attention a token's attention over the cache
    step      one token through the whole model
    compiled  from these sources to machine code, kept in the cache folder
    team      the threads that run it
    model     the model that decodes with the step and prefills with torch

Only ``compiled``'s child process imports Numba; everybody else calls its machine code.
"""
