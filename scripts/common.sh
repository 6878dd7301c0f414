# Sourced by the scripts: goes to the root of the repository and picks a Python, that of `conda activate augpe` or the
# .venv of scripts/setup.sh.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${CONDA_DEFAULT_ENV:-}" != augpe ] && [ -x .venv/bin/python ]; then
    python=.venv/bin/python
else
    python=python
fi

# workflow DATA_SET CONFIG OPTIONS: generates, evaluates, and makes the report. All options go to main.py; the result
# folder, --log_private and --dry_run to the others, too.
workflow() {
    local data=$1 config=$2 folder step
    shift 2
    folder=$(sed -n 's/^result_folder: *//p' "$config")
    "$python" main.py --config "$config" "$@"
    [[ " $* " != *" --help "* && " $* " != *" -h "* ]] || return 0
    local shared=() dry=
    while [ $# -gt 0 ]; do
        case $1 in
        --result_folder) folder=${2:-} ;;
        --result_folder=*) folder=${1#*=} ;;
        --log_private) shared+=("$1") ;;
        --dry_run) shared+=("$1") dry=yes ;;
        esac
        shift
    done
    for step in downstream metric; do
        "$python" "$step.py" --config "data/$data/$step.yaml" --result_folder "$folder" ${shared[@]+"${shared[@]}"}
    done
    [ -n "$dry" ] || "$python" -m dpsda.report "$folder"
}
