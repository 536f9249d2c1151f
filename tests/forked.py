"""Commands in processes of their own that need not import torch again: a server imports it once and forks for each.

A forked process carries one command out from beginning to end with its own arguments, environment, folder, streams and
session, and with nothing that an earlier command left behind. It ends as any program does, but for the modules, which
are not taken apart: that would take longer than most commands. The server starts no thread and computes nothing, which
is what makes forking it safe; where that is not so it ends. What a command imports, and what the interpreter's own
options do, is seen in fresh processes alone.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 180.0  # generous: a busy machine is not a failure


@dataclass
class Forked:
    """A command that runs. Its standard output and error are files."""

    server: "ForkServer"
    pid: int
    out: Path
    err: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask(status_of=self.pid)["returncode"]
        return self.returncode

    def wait(self, limit_s: float = LIMIT_S) -> int:
        deadline = time.monotonic() + limit_s
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass
class ForkServer:
    """`with ForkServer() as server: server.start("train", "recipe.toml", cwd=folder)`."""

    process: subprocess.Popen[str] | None = None
    started: list[Forked] = field(default_factory=list)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None:
            self.kill_all()
            self.process.stdin.close()
            self.process.wait(LIMIT_S)
            self.process.stdout.close()

    def start(self, *arguments: str, cwd: Path, **environment: str) -> Forked:
        """Begin `distilsql ARGUMENTS` in the folder `cwd`; its output is in out.txt and err.txt there."""
        out, err = cwd / "out.txt", cwd / "err.txt"
        for file in (out, err):
            file.write_text("")
        answer = self.ask(
            arguments=arguments,
            environment={**os.environ, **environment},
            cwd=str(cwd),
            out=str(out),
            err=str(err),
        )
        self.started.append(Forked(self, answer["pid"], out, err))
        return self.started[-1]

    def run(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = self.start(*arguments, cwd=cwd, **environment)
        status = command.wait()
        return subprocess.CompletedProcess(
            arguments, status, command.out.read_text(), command.err.read_text()
        )

    def kill_all(self) -> None:
        for command in self.started:
            command.kill()
            command.wait()
        self.started.clear()

    def ask(self, **request: Any) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the fork server has ended: see its standard error"
        return json.loads(answer)


def serve() -> dict[str, Any] | None:
    """Answer until the other end closes. Returns twice as often as it is called: in each new process with the command
    that it is to carry out, and in the server with None."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "status_of" in request:
            pid, status = os.waitpid(request["status_of"], os.WNOHANG)
            answer = {"returncode": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            answer = {"pid": os.fork()}
            if answer["pid"] == 0:
                return request
        print(json.dumps(answer), flush=True)
    return None


def become(command: dict[str, Any]) -> None:
    """Take on what a process that was started for this command would have from its parent."""
    os.setsid()
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv[:] = ["distilsql", *command["arguments"]]
    for number, name in ((0, os.devnull), (1, command["out"]), (2, command["err"])):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(opened, number)
        os.close(opened)


def leave(status: int) -> None:
    """End as the interpreter does, but for the modules: threads first, then what was registered, then the streams."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def import_what_commands_import() -> None:
    """Raises RuntimeError where that has started a thread."""
    import distilsql.cli
    import distilsql.inference.exposure
    import distilsql.inference.predict
    import distilsql.runs.evaluate
    import distilsql.training.train

    try:
        import distilsql.serve.app
        import distilsql.serve.mcp_server
        import distilsql.serve.server  # noqa: F401
    except ImportError:  # their extras are not installed, and their tests are skipped
        pass
    refuse_threads()


def refuse_threads() -> None:
    """Raises RuntimeError where this process has several threads, and so must not fork."""
    tasks = Path("/proc/self/task")  # Linux has threads here that Python does not know of
    count = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    if count > 1:
        raise RuntimeError(
            f"Imports have started {count - 1} threads, so no process can be forked off safely."
        )


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # as for a command: the tests are not importable
    gc.disable()
    import_what_commands_import()
    gc.freeze()  # or each process would copy all that is imported, to count references in it
    command = serve()
    if command is not None:
        become(command)
        from distilsql.cli import main

        gc.enable()
        try:
            main()
        except SystemExit as end:  # `main` always ends so, with a number
            leave(end.code)
