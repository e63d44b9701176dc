#!/usr/bin/env bash
# Makes a Ray cluster of machines that are there already, and runs a sweep on it.
#
#   experiments/launch/ray_cluster.sh head                        # on the first machine; says its address
#   experiments/launch/ray_cluster.sh worker ADDRESS:6379         # on every other machine
#   experiments/launch/ray_cluster.sh sweep --config=configs/word_lm.py --sweep=SWEEP.py --workdir=/shared/sweep
#   experiments/launch/ray_cluster.sh stop                        # on every machine
#
# All machines need this package in the same version, with the extra `ray`, and the workdir in the same place (a shared
# file system). For machines that are to be made first, in a cloud, see ray_cluster.yaml.
set -eu

usage() {
    echo "usage: $0 head | worker ADDRESS:PORT | sweep [flags of sweep] | stop" >&2
    exit 2
}
[[ $# -ge 1 ]] || usage
what=$1
shift
case $what in
    head) exec ray start --head --port="${PORT:-6379}" "$@" ;;
    worker)
        [[ $# -ge 1 ]] || usage
        address=$1
        shift
        exec ray start --address="$address" "$@"
        ;;
    sweep)
        [[ $# -ge 1 ]] || usage
        exec lstm-research sweep --engine=ray --address=auto "$@"
        ;;
    stop) exec ray stop "$@" ;;
    *) usage ;;
esac
