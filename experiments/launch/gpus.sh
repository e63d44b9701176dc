#!/usr/bin/env bash
# Trains one run on all GPUs of this machine, or on those that CUDA_VISIBLE_DEVICES names.
#
#   experiments/launch/gpus.sh one  --config=configs/word_lm.py --workdir=runs/words   # one process for all GPUs
#   experiments/launch/gpus.sh each --config=configs/word_lm.py --workdir=runs/words   # one process for each GPU
#
# `one` is simpler, and as fast as long as one process can read the data and launch the steps in time: the train lines
# of the log say which part of the time the host takes. task.batch_size must be a multiple of the number of GPUs.
# Restart it with the same words after exit code 143, or after a process was lost: the run goes on from its newest
# checkpoint.
set -eu

usage() {
    echo "usage: $0 one|each --config=RECIPE.py --workdir=FOLDER [flags of train]" >&2
    exit 2
}
[[ $# -ge 2 ]] || usage
how=$1
shift

# Sums over several GPUs, and some kernels, are otherwise not the same bits from run to run; it costs some speed.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true"
case $how in
    one)
        # shellcheck disable=SC2086  # TRAIN is a command with arguments
        exec ${TRAIN:-lstm-research train} "$@"
        ;;
    each)
        if [[ -z ${CUDA_VISIBLE_DEVICES+given} ]]; then
            CUDA_VISIBLE_DEVICES=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)
        fi
        if [[ -z $CUDA_VISIBLE_DEVICES ]]; then
            echo "$0: no GPU: neither nvidia-smi nor CUDA_VISIBLE_DEVICES names one" >&2
            exit 2
        fi
        devices=${CUDA_VISIBLE_DEVICES//,/ }
        read -r -a all <<< "$devices"
        DEVICES=$devices exec "$(dirname "$0")/local.sh" "${#all[@]}" "$@"
        ;;
    *) usage ;;
esac
