"""First-generation Qwen checkpoints in the forms that today's engines read; ``run`` is the way in.

A first-generation Qwen is a Qwen2 with as many key/value heads as heads: the matrix of queries, keys and
values is one where Qwen2 has three, and the tensors are called otherwise. So its weights, codes of GPTQ among
them, move over bit for bit.
"""
