"""What every process that runs SQL does, whichever engine it talks to: keep to its limits, and answer jobs until its
parent is gone.

Jobs come on standard input, results go to standard output. Both directions carry frames: four bytes of length (big
endian), then JSON. Data, not pickles: a worker that a hostile statement has taken over can lie about rows but cannot
run code in its parent. It imports the standard library alone, as SQLite's worker does.
"""

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

try:
    import resource
except ImportError:  # not a POSIX system: the parent's clock and the engine's own limits remain
    resource = None  # type: ignore[assignment]

PARENT_CHECK_S = 0.25


def limit_process(memory_bytes: int) -> None:
    """Operating system limits for the whole life of this process: address space, no byte to any file, no core."""
    if resource is None:
        return
    address_space = address_space_bytes() + memory_bytes
    for kind, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def allow_cpu_seconds(timeout_s: float) -> None:
    """The kernel kills a worker that computes past its limit even if its parent has stopped watching."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(used.ru_utime + used.ru_stime + timeout_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def address_space_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 256 * 2**20


def encode(answer: dict[str, Any], max_bytes: int) -> bytes:
    try:
        payload = json.dumps(answer, ensure_ascii=False, default=encode_bytes).encode(
            errors="backslashreplace"
        )
    except MemoryError:
        payload = None
    if payload is None or len(payload) > max_bytes:
        message = f"the result is larger than {max_bytes} bytes"
        times = {name: answer[name] for name in ("seconds", "cpu_seconds")}
        answer = {"outcome": "TOO_LARGE", "message": message} | times
        payload = json.dumps(answer).encode()
    return frame_of(payload)


def frame_of(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def encode_bytes(value: Any) -> dict[str, str]:
    """JSON has no bytes; no other cell is an object, so the way back is unambiguous."""
    return {"bytes": value.hex()}


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    header = stream.read(4)
    if len(header) < 4:
        return None
    (size,) = struct.unpack(">I", header)
    payload = stream.read(size)
    return payload if len(payload) == size else None


def exit_with_parent(parent_id: int) -> None:
    """Ends this process when its parent is gone, also in the middle of a query (SQLite releases the GIL).

    PR_SET_PDEATHSIG would not do: it fires when the thread that started the worker ends, not the process.
    """
    while os.getppid() == parent_id:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def serve(parent_id: int, memory_bytes: int, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Say that this process is ready, then answer jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    threading.stack_size(256 * 1024)
    threading.Thread(target=exit_with_parent, args=(parent_id,), daemon=True).start()
    limit_process(memory_bytes)
    output = sys.stdout.buffer
    output.write(frame_of(b"ready"))
    output.flush()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        job = json.loads(frame)
        allow_cpu_seconds(job["timeout_s"] if job["cpu_s"] is None else job["cpu_s"])
        started_cpu = time.process_time()
        answer = run(job)
        answer.setdefault("cpu_seconds", time.process_time() - started_cpu)
        output.write(encode(answer, job["max_bytes"]))
        output.flush()
