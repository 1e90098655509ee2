"""One supervisor, which owns the desired state and serves nothing, and the worker processes, which serve.

    supervisor.py -> pool.py (starts, replaces, asks them all) -> channel.py <- worker.py -> server.py (HTTP, the drain)

messages.py is all that they say to each other. What runs in the supervisor imports neither web framework nor runtime.
"""
