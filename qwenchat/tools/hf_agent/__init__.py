"""The agent of transformers.tools: a task becomes a few lines of Python that call tools, and those are run.

The model card's benchmark of it is in two modes: "run" for a task by itself, "chat" for one after another.
The prompts and the tools' descriptions are the original's (``data/hf_agent``), the model is asked as Qwen's
own wrapper asks it, and the code is interpreted here by an interpreter of its own, which knows assignments,
calls of tools and little else.
"""
