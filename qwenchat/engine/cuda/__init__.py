"""The engine on a GPU: packing, prefill, decode as one graph; kernels/ has the Triton kernels."""
