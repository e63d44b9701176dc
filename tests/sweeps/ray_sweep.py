"""Drives a sweep of fake trials on a Ray cluster of this machine: `ray_sweep.py FOLDER OPTIONS NODES`.

With two nodes, one is killed once a trial on it has got somewhere.
"""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from drive import fake_sweep
from ray.cluster_utils import Cluster

from lstm_research.sweeps.ray_cluster import RayEngine


def main(folder: Path, options: dict[str, object], nodes: int) -> int:
    cluster = Cluster()
    cluster.add_node(num_cpus=1)
    others = [cluster.add_node(num_cpus=1) for _ in range(nodes - 1)]

    def kill_a_node() -> None:
        while len([path for path in folder.glob("trials/*/metrics.jsonl") if path.stat().st_size]) < 2:
            time.sleep(0.05)
        print("killing a node", flush=True)
        cluster.remove_node(others[0], allow_graceful=False)

    if others:
        threading.Thread(target=kill_a_node, daemon=True).start()
    try:
        return RayEngine(address=cluster.address).run(fake_sweep(folder, **options))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])))
