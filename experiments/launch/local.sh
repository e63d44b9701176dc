#!/usr/bin/env bash
# Trains one run with several processes on this machine.
#
#   experiments/launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
#
# What follows the number are flags of `lstm-research train`. On CPUs (JAX_PLATFORMS=cpu) this is a rehearsal for a
# cluster; with DEVICES set, as gpus.sh does, process i sees the i-th of these GPUs alone.
#
# SIGTERM and Ctrl-C go to all processes, which save and end. The exit code is 0 if all finished, else that of the
# first that did not: 143 saved and stopped (start again to go on), 2 a mistake to correct, 1 diverged or a process
# was lost (start again), 134 a process fell silent (likewise), 137 killed.
set -u

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 PROCESSES --config=RECIPE.py --workdir=FOLDER [flags of train]" >&2
    exit 2
fi
count=$1
shift
read -r -a devices <<< "${DEVICES:-}"
if [[ ${#devices[@]} -gt 0 && ${#devices[@]} -lt $count ]]; then
    echo "$0: $count processes, and DEVICES names ${#devices[@]} GPUs" >&2
    exit 2
fi
port=${PORT:-$((20000 + RANDOM % 12000))}
train=${TRAIN:-lstm-research train}

processes=()
for ((index = 0; index < count; index++)); do
    if [[ ${#devices[@]} -gt 0 ]]; then
        export CUDA_VISIBLE_DEVICES=${devices[index]}
    fi
    # shellcheck disable=SC2086  # TRAIN is a command with arguments
    $train "$@" --coordinator_address="localhost:$port" --num_processes="$count" --process_id="$index" &
    processes+=($!)
done
interrupted=
trap 'interrupted=1; kill -TERM "${processes[@]}" 2>/dev/null' TERM INT

code=0
for process in "${processes[@]}"; do
    wait "$process"
    ended=$?
    while [[ -n $interrupted ]]; do # the trap may have ended the waiting, and not the process
        interrupted=
        wait "$process"
        again=$?
        if [[ $again -ne 127 ]]; then # 127: it had been waited for
            ended=$again
        fi
    done
    if [[ $code -eq 0 ]]; then
        code=$ended
    fi
done
exit "$code"
