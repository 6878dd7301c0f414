# Sourced by the scripts: goes to the root of the repository and picks a Python, that of `conda activate augpe` or the
# .venv of scripts/setup.sh.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${CONDA_DEFAULT_ENV:-}" != augpe ] && [ -x .venv/bin/python ]; then
    python=.venv/bin/python
else
    python=python
fi

# evaluate ENTRY.py OPTIONS: runs an entry point that comes with a later version; with --dry_run, says what would run.
evaluate() {
    if [ -e "$1" ]; then
        "$python" "$@"
    elif [[ " $* " == *" --dry_run "* ]]; then
        echo "would run: python $*"
    else
        echo "error: $1 is not part of this version; the synthetic texts lie in release/ of the result folder" >&2
        exit 2
    fi
}

# workflow DATA_SET CONFIG OPTIONS: generates, then evaluates with what this version has. All options go to main.py, the
# result folder and --dry_run to the others, too.
workflow() {
    local data=$1 config=$2 folder step
    shift 2
    folder=$(sed -n 's/^result_folder: *//p' "$config")
    "$python" main.py --config "$config" "$@"
    [[ " $* " != *" --help "* && " $* " != *" -h "* ]] || return 0
    local shared=(--result_folder "$folder")
    while [ $# -gt 0 ]; do
        case $1 in
        --result_folder) shared[1]=${2:-} ;;
        --result_folder=*) shared[1]=${1#*=} ;;
        --dry_run) shared+=(--dry_run) ;;
        esac
        shift
    done
    for step in downstream metric; do
        if [[ -e $step.py || " ${shared[*]} " == *" --dry_run "* ]]; then
            evaluate "$step.py" --config "data/$data/$step.yaml" "${shared[@]}"
        else
            echo "$step.py is not part of this version: left out"
        fi
    done
}
