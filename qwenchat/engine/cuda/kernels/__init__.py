"""The CUDA kernels, in Triton: each above its launcher, beside the plain-torch twin that tests hold it to."""
