#!/bin/sh
# SGLang serves an exported folder: sh deploy/sglang.sh ./qwen-7b-int8 [GPUS]
set -eu
exec python3 -m sglang.launch_server \
    --model-path "$1" \
    --served-model-name qwen \
    --tp "${2:-1}" \
    --context-length 8192 \
    --host 127.0.0.1 \
    --port 8000
