# Sourced by the scripts: goes to the root of the repository and picks a Python, that of `conda activate augpe` or the
# .venv of scripts/setup.sh.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${CONDA_DEFAULT_ENV:-}" != augpe ] && [ -x .venv/bin/python ]; then
    python=.venv/bin/python
else
    python=python
fi

# shared_options CONFIG OPTIONS: what of a command's options is for the commands after it, too: sets folder, the result
# folder, and shared, --log_private and --dry_run where they are given
shared_options() {
    folder=$(sed -n 's/^result_folder: *//p' "$1")
    shared=()
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --result_folder) folder=${2:-} ;;
        --result_folder=*) folder=${1#*=} ;;
        --log_private | --dry_run) shared+=("$1") ;;
        esac
        shift
    done
}

# workflow DATA_SET CONFIG OPTIONS: generates, evaluates, and makes the report. All options go to main.py; the result
# folder, --log_private and --dry_run to the others, too.
workflow() {
    local data=$1 config=$2 folder shared step
    shift 2
    "$python" main.py --config "$config" "$@"
    [[ " $* " != *" --help "* && " $* " != *" -h "* ]] || return 0
    shared_options "$config" "$@"
    for step in downstream metric; do
        "$python" "$step.py" --config "data/$data/$step.yaml" --result_folder "$folder" ${shared[@]+"${shared[@]}"}
    done
    [[ " $* " == *" --dry_run "* ]] || "$python" -m dpsda report "$folder"
}
