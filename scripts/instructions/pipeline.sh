#!/usr/bin/env bash
# Private instructions to an aligned model, small: DP generator, resampling, answers, fine-tuning in four arms, win rates,
# a reward model and a policy gradient. Everything is local by default, on the embedded model and the embedded chats:
#
#   bash scripts/instructions/pipeline.sh
#   bash scripts/instructions/pipeline.sh --api_base http://localhost:8000/v1 --answer_model my-model --judge_model my-judge
#   bash scripts/instructions/pipeline.sh --answer_model gpt-3.5-turbo --judge_model gpt-4     # keys from the environment
#   bash scripts/instructions/pipeline.sh --result_folder results/mine --log_private
#
# A quarter of an hour on two cores with bfloat16, half an hour without. Safe to repeat: a step that is complete is not
# done again, and one that was stopped goes on. The arms `real` and `dp_sgd` train on real pairs: `real` is not private
# and lies in RUN/private; `dp_sgd` is a run of its own, with an epsilon of its own, beside RUN.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

run=results/instructions api_base=() answer_model= judge_model= log_private=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' scripts/instructions/pipeline.sh && exit ;;
    --log_private) log_private=(--log_private) && shift && continue ;;
    esac
    [ $# -gt 1 ] || { echo "error: $1: an unknown option, or one without its value (see --help)" >&2 && exit 2; }
    case $1 in
    --result_folder) run=$2 ;;
    --api_base) api_base=(--api_base "$2") ;;
    --answer_model) answer_model=$2 ;;
    --judge_model) judge_model=$2 ;;
    *) echo "error: unknown option $1 (see --help)" >&2 && exit 2 ;;
    esac
    shift 2
done
shared=$run/alignment private=$run/private/alignment
model=embedded:smollm2-135m-instruct

# align STEP NAME OPTIONS: one step of align.py
align() {
    local step=$1 name=$2
    shift 2
    local config=(--config "data/chat/align/$step.yaml")
    [ "$step" = pairs ] && config=()
    "$python" align.py "$step" ${config[@]+"${config[@]}"} --result_folder "$run" --name "$name" \
        ${log_private[@]+"${log_private[@]}"} "$@"
}
# a remote model by --answer_model or --judge_model, the embedded one otherwise
remote() { [ -z "$1" ] || printf '%s\n' --api AzureGPT --model_type "$1" ${api_base[@]+"${api_base[@]}"}; }
mapfile -t answering < <(remote "$answer_model")
mapfile -t judging < <(remote "$judge_model")

echo "== 1. a DP generator of instructions, and its samples"
"$python" finetune.py --config data/chat/finetune.yaml --result_folder "$run"
echo "== 2. the samples resampled to a DP histogram of the real instructions"
"$python" resample.py --config data/chat/resample.yaml --result_folder "$run"

echo "== 3. answers for the released instructions"
align answers to_unfiltered --instructions "$run/state/samples" --num_instructions 128 ${answering[@]+"${answering[@]}"}
align answers to_resampled --instructions "$run/release/synthetic.csv" --num_instructions 128 \
    ${answering[@]+"${answering[@]}"}

echo "== 4. fine-tuning: real (not private), DP-SGD on real pairs, synthetic unfiltered, synthetic resampled"
align pairs pairs --dataset chat --chat_model "$model"
align sft sft_real --pairs "$private/pairs/pairs.csv"
"$python" finetune.py --config data/chat/finetune_pairs.yaml --dataset "$private/pairs" --result_folder "${run}_dp_sgd"
align sft sft_unfiltered --pairs "$shared/to_unfiltered/answers.csv"
align sft sft_resampled --pairs "$shared/to_resampled/answers.csv"

echo "== 5. answers of the arms to held-out instructions, and win rates"
align pairs held_out --dataset chat --split test
held_out=(--instructions "$shared/held_out/pairs.csv" --num_instructions 24)
align answers base "${held_out[@]}"
align answers real "${held_out[@]}" --adapter "$private/sft_real/adapter"
align answers dp_sgd "${held_out[@]}" --adapter "${run}_dp_sgd/state/adapter"
align answers unfiltered "${held_out[@]}" --adapter "$shared/sft_unfiltered/adapter"
align answers resampled "${held_out[@]}" --adapter "$shared/sft_resampled/adapter"
for pair in "resampled unfiltered" "resampled dp_sgd" "resampled base"; do
    read -r one other <<<"$pair"
    align judge "${one}_vs_$other" --answers "$shared/$one/answers.csv" --against "$shared/$other/answers.csv" \
        ${judging[@]+"${judging[@]}"}
done
# against the arm that nothing protects: by the local judge, since its answers are private
align judge real_vs_resampled --answers "$private/real/answers.csv" --against "$shared/resampled/answers.csv"

echo "== 6. preferences, a reward model, and a policy gradient on the released instructions"
align answers tuned --instructions "$run/release/synthetic.csv" --num_instructions 48 \
    --adapter "$shared/sft_resampled/adapter"
align judge preferred --answers "$shared/tuned/answers.csv" --against "$shared/to_resampled/answers.csv" \
    ${judging[@]+"${judging[@]}"}
align reward reward --verdicts "$shared/preferred/verdicts.csv"
align rlhf policy --instructions "$run/release/synthetic.csv" --reward "$shared/reward/adapter" \
    --adapter "$shared/sft_resampled/adapter"
align answers policy_answers "${held_out[@]}" --adapter "$shared/policy/adapter"
align judge policy_vs_resampled --answers "$shared/policy_answers/answers.csv" \
    --against "$shared/resampled/answers.csv" ${judging[@]+"${judging[@]}"}

echo "== win rates ($run)"
grep -hoE 'win rate [^"]*' "$shared"/*/done.json
