"""`python -m tests.support.ray_cluster PORT`: the service on a Ray cluster of two nodes, with one replica on each.

The CONVOY_* variables configure it. Prints a line when it serves, and ends when its standard input ends.
"""

import sys

import ray
import ray.util.state
from ray import serve
from ray.cluster_utils import Cluster

from service.ray_serve import Options, build


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    # One proxy: those of two nodes cannot share the port of one machine.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(build(Options(min_replicas=2, max_replicas=2)), route_prefix="/")
    actors = ray.util.state.list_actors(filters=[("state", "=", "ALIVE")])
    nodes = {actor.node_id for actor in actors if actor.class_name.startswith("ServeReplica")}
    sys.stdout.write(f"serving on {len(nodes)} nodes\n")
    sys.stdout.flush()
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
