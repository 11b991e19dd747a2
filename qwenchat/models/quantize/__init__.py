"""Int8 and Int4 checkpoints from float ones, with the GPTQ of auto-gptq; ``run`` is the way in."""
