#!/bin/sh
# vLLM serves an exported folder: sh deploy/vllm.sh ./qwen-7b-int8 [GPUS]
# The key, if there is to be one, stands in the environment: VLLM_API_KEY. The folder says its own quantisation,
# chat template and sampling; no remote code is needed. --host 0.0.0.0 opens it to the network.
set -eu
exec vllm serve "$1" \
    --served-model-name qwen \
    --tensor-parallel-size "${2:-1}" \
    --max-model-len 8192 \
    --host 127.0.0.1 \
    --port 8000
