#!/bin/sh
# llama.cpp serves an exported GGUF file: sh deploy/llama-server.sh ./qwen-7b.gguf [AT_ONCE]
# The context is shared by those that are served at once: 8,192 tokens for each.
set -eu
at_once="${2:-4}"
exec llama-server \
    --model "$1" \
    --alias qwen \
    --ctx-size "$((8192 * at_once))" \
    --parallel "$at_once" \
    --n-gpu-layers 999 \
    --host 127.0.0.1 \
    --port 8000
