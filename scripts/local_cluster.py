"""Trains with several workers on this machine, as `TF_CONFIG` would have it on many.

    scripts/launch_local_cluster N --out FOLDER [options of asl-fast train]

The first worker shows what it does; the others write to FOLDER/worker-1.log and so on. Where one
dies, the others can't go on: all are started again, three times at most, and go on from the last
checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RESTARTS = 3
GRACE = 60.0  # seconds for workers to save and end, after one of them has


def main() -> None:
    """Runs the workers to their end."""
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or "--out" not in sys.argv[:-1]:
        sys.exit("launch_local_cluster: give the number of workers, and --out FOLDER.")
    count, options = int(sys.argv[1]), sys.argv[2:]
    folder = Path(options[options.index("--out") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    asked_to_stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked_to_stop.append(number))
    for attempt in range(RESTARTS + 1):
        codes = run(count, options, folder, asked_to_stop)
        if not any(codes) or asked_to_stop or 2 in codes or attempt == RESTARTS:
            break
        print(f"A worker died (exit codes {codes}). Starting all of them again.", flush=True)
    sys.exit(next((code for code in codes if code), 0) % 256)


def run(count: int, options: list[str], folder: Path, asked_to_stop: list[int]) -> list[int]:
    """Starts the workers, waits for them, and returns their exit codes."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "asl_fast", "train", "--resume", *options]
        with (folder / f"worker-{index}.log").open("w") if index else open(os.devnull, "w") as log:
            workers.append(
                subprocess.Popen(
                    [*command, "--strategy", "multiworker"],
                    env=os.environ | {"TF_CONFIG": json.dumps(task)},
                    stdout=log if index else None,
                    stderr=log if index else None,
                    start_new_session=True,
                )
            )
    told, deadline = 0, float("inf")
    while any(worker.poll() is None for worker in workers):
        for number in asked_to_stop[told:]:
            for worker in workers:
                worker.send_signal(number)
        told = len(asked_to_stop)
        if deadline == float("inf") and any(worker.poll() for worker in workers):
            # Those that were told to end do so by themselves; those whose peer died may wait.
            deadline = time.monotonic() + (GRACE if told else 5.0)
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return [worker.returncode for worker in workers]


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


if __name__ == "__main__":
    main()
