#!/usr/bin/env bash
# Trains one run on a Cloud TPU, on all of its hosts: one process a host, which find each other by themselves.
#
#   gcloud compute tpus tpu-vm create NAME --zone=ZONE --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite
#   experiments/launch/tpu_vm.sh NAME ZONE setup
#   experiments/launch/tpu_vm.sh NAME ZONE train --config=configs/word_lm.py --workdir=/mnt/runs/words
#
# `setup` copies the last commit of this checkout to every host and installs it there with the extra `tpu` and a Python
# of its own, for that of the hosts is older than 3.11. `train` starts it on all of them and shows what they say; it
# goes on there when this program is interrupted. Only the first host writes to the workdir; after the TPU was preempted
# and made anew the run goes on if that folder is still there, so put it on a disk that outlives the hosts (Filestore,
# or a bucket mounted by gcsfuse). Data is prepared on every host.
set -eu

if [[ $# -lt 3 || ! $3 =~ ^(setup|train)$ ]]; then
    echo "usage: $0 NAME ZONE setup | $0 NAME ZONE train --config=RECIPE.py --workdir=FOLDER [flags of train]" >&2
    exit 2
fi
name=$1 zone=$2 what=$3
shift 3
root=$(cd "$(dirname "$0")/../.." && pwd)

on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $what in
    setup)
        archive=$(mktemp --suffix=.tar.gz)
        trap 'rm -f "$archive"' EXIT
        git -C "$root" archive --format=tar.gz --output="$archive" HEAD
        gcloud compute tpus tpu-vm scp "$archive" "$name:lstm_research.tar.gz" --zone="$zone" --worker=all
        on_all_hosts "mkdir -p lstm_research && tar -xzf lstm_research.tar.gz -C lstm_research && cd lstm_research &&
            python3 -m pip install --quiet uv && python3 -m uv venv --quiet --allow-existing --python 3.12 .venv &&
            python3 -m uv pip install --quiet --python .venv '.[tpu]'"
        ;;
    train)
        flags=$(printf ' %q' "$@")
        on_all_hosts "cd lstm_research && .venv/bin/lstm-research train --distributed$flags"
        ;;
esac
