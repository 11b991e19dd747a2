"""The decode step for Hopper in CUDA C++: how matrices lie for it, the kernels, how they are compiled."""
