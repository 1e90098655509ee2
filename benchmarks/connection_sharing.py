"""Counts how many connections each worker takes when many arrive at once.

    python -m benchmarks.connection_sharing --port 8000 --connections 16 --bursts 12

The service must run with two or more workers on this machine. Prints the share of the worker with the fewest.
"""

import argparse
import socket
import time
from collections import Counter
from contextlib import ExitStack

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.connection_sharing", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--bursts", type=int, default=12)
    options = parser.parse_args()
    shares = []
    for _ in range(options.bursts):
        counts = burst(options.port, options.connections)
        shares.append(min(counts.values()) / options.connections if len(counts) > 1 else 0.0)
        print(*sorted(counts.values()))
    print(f"the worker with the fewest has {sum(shares) / len(shares):.0%}, on average")


def burst(port: int, connections: int) -> Counter[int]:
    """Returns the number of connections by process id."""
    with ExitStack() as opened:
        for _ in range(connections):
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        time.sleep(0.3)
        found = psutil.net_connections("tcp4")
        held = [
            one.pid for one in found if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port and one.pid
        ]
    time.sleep(0.2)
    return Counter(held)


if __name__ == "__main__":
    main()
