"""Real database servers for tests: each started in a folder of its own, listening on a socket there and nowhere else.

Debian: `apt-get install postgresql mariadb-server`. Started by root, they run as the accounts that these packages made.
"""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

START_S = 120.0
# Every account's password, as people choose them and as URLs do not like them.
PASSWORD = "p@ss:w/rd?%"


@dataclass(frozen=True)
class Server:
    """`engine` is the scheme of its URLs; `query` says where its socket is."""

    engine: str
    query: str
    folder: Path

    def url(self, user: str, database: str, more: str = "") -> str:
        return f"{self.engine}://{user}:{quote(PASSWORD, safe='@:')}@/{database}?{self.query}{more}"

    def run(self, database: str, *statements: str) -> None:
        """As the owner, each committed by itself."""
        with self._connection(database) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)

    @contextmanager
    def _connection(self, database):
        if self.engine == "postgresql":
            import psycopg

            connection = psycopg.connect(
                host=str(self.folder), user="owner", password=PASSWORD, dbname=database, autocommit=True
            )
        else:
            import pymysql

            socket = str(self.folder / "socket")
            connection = pymysql.connect(
                unix_socket=socket, user="owner", password=PASSWORD, database=database, autocommit=True
            )
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def running_postgresql() -> Iterator[Server]:
    """A server with a superuser `owner` and the database `postgres`. Skips the test where it cannot be had."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve()] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if not candidates:
        pytest.skip("PostgreSQL is not installed: there is no initdb")
    programs = candidates[0].parent
    with _folder("postgresql", "postgres") as (folder, account):
        cluster, password = folder / "cluster", folder / "password"
        password.write_text(PASSWORD)
        scram = ("-A", "scram-sha-256", f"--pwfile={password}", "--no-sync")
        _run(account, programs / "initdb", "-D", cluster, "-U", "owner", *scram)
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        _run(account, programs / "pg_ctl", "-D", cluster, "-w", "-o", options, "-l", folder / "log", "start")
        try:
            yield Server("postgresql", f"host={folder}", folder)
        finally:
            _run(account, programs / "pg_ctl", "-D", cluster, "-m", "immediate", "stop")


@contextmanager
def running_mariadb() -> Iterator[Server]:
    """A server with an administrator `owner` and the database `mysql`. Skips the test where it cannot be had."""
    pymysql = pytest.importorskip("pymysql", reason="MariaDB's driver is not installed")
    install = shutil.which("mariadb-install-db")
    program = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if install is None or program is None:
        pytest.skip("MariaDB is not installed: there is no mariadb-install-db or no mariadbd")
    with _folder("mariadb", "mysql") as (folder, account):
        data = f"--datadir={folder / 'data'}"
        _run(
            account,
            install,
            "--no-defaults",
            data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        socket = str(folder / "socket")
        options = (f"--socket={socket}", f"--pid-file={folder / 'pid'}", "--skip-networking")
        small = ("--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "--no-defaults", data, *options, *small],
                user=account,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        try:
            until = time.monotonic() + START_S
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                if Path(socket).exists():  # when it is ready
                    break
                assert time.monotonic() < until, "MariaDB does not answer"
                time.sleep(0.1)
            root = pymysql.connect(unix_socket=socket, user="root")
            with root, root.cursor() as cursor:
                cursor.execute("CREATE USER owner@localhost IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT ALL PRIVILEGES ON *.* TO owner@localhost WITH GRANT OPTION")
            yield Server("mysql", f"unix_socket={socket}", folder)
        finally:
            process.kill()
            process.wait()


@contextmanager
def _folder(name: str, account: str) -> Iterator[tuple[Path, str | None]]:
    """A folder that the account may write to, and the account; None where these tests are not run by root.

    Not below pytest's own folder: that one is closed to other accounts, and too long for the path of a socket.
    """
    folder = Path(f"/tmp/distilsql-{name}-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        if os.geteuid() != 0:
            yield folder, None
            return
        shutil.chown(folder, pwd.getpwnam(account).pw_name)
        yield folder, account
    finally:
        shutil.rmtree(folder)


def _run(account: str | None, program: object, *arguments: object) -> None:
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, user=account, capture_output=True, text=True, cwd="/", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
