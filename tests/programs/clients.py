"""The programs of the lab with their real clients: how each is run by Docker, and how a value gets in and out of it.

Clients talk to a published port at 127.0.0.1 of the host; those that are not HTTP come out of the program's own image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests import lab
from tests.programs.build import PREFIX

PASSWORD = """s3 cr'et "100%" \\"""  # what a settings file must carry exactly


class NoAnswer(AssertionError):
    """The program does not serve this request (yet)."""


def _client(host: lab.Host, *command: str) -> str:
    done = lab.run(*command, check=False, DOCKER_HOST=host.docker)
    if done.returncode != 0:
        raise NoAnswer(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def http(host: lab.Host, port: int, path: str, *options: str) -> str:
    """One request, by curl in the host's network."""
    command = ("nsenter", "-t", str(host.leader), "-n", "curl", "-sS", "--fail", "--max-time", "10", *options)
    return _client(host, *command, f"http://127.0.0.1:{port}/{path}")


def _in_image(host: lab.Host, name: str, variable: str, *command: str) -> str:
    run = ("docker", "run", "--rm", "--network=host", "--env", variable, "--entrypoint", command[0])
    return _client(host, *run, f"{PREFIX}/{name}", *command[1:])


def psql(host: lab.Host, port: int, statement: str) -> str:
    command = ("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAtc")
    return _in_image(host, "postgres", f"PGPASSWORD={PASSWORD}", *command, statement, "shop")


def redis_cli(host: lab.Host, port: int, *command: str) -> str:
    return _in_image(host, "redis", "LANG=C.UTF-8", "redis-cli", "-e", "-p", str(port), *command)


def mariadb(host: lab.Host, port: int, statement: str) -> str:
    command = (
        "mariadb",
        "-h",
        "127.0.0.1",
        "-P",
        str(port),
        "-u",
        "root",
        "-N",
        "-B",
        "-e",
        statement,
        "shop",
    )
    return _in_image(host, "mariadb", f"MYSQL_PWD={PASSWORD}", *command)


@dataclass(frozen=True)
class Program:
    """`run` are the options of `docker run`, `command` what follows the image. `last_words` is a pattern of what the
    program prints when it ends cleanly; killed, it does not come to that. `label` makes a container's name its own.
    """

    name: str
    port: int
    published: int
    last_words: str
    put: Callable[[lab.Host, int, str, str], object]
    get: Callable[[lab.Host, int, str], str]
    run: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    volume: str | None = None
    checked: bool = False
    label: str = "moves"

    @property
    def container(self) -> str:
        return f"{self.name}-{self.label}"

    @property
    def volume_name(self) -> str | None:
        return f"{self.container}-data" if self.volume else None

    @property
    def image(self) -> str:
        return f"{PREFIX}/{self.name}"

    def docker_command(self, verb: str = "run") -> tuple[str, ...]:
        options = ["-d"] if verb == "run" else []
        options += ["--name", self.container, f"--publish={self.published}:{self.port}"]
        options += [f"--volume={self.volume_name}:{self.volume}"] if self.volume else []
        return ("docker", verb, *options, *self.run, self.image, *self.command)

    def ends_cleanly(self, output: str) -> bool:
        return re.search(self.last_words, output) is not None

    def answers(self, host: lab.Host, key: str = "waiting") -> bool:
        """Does it take a value and give it back?"""
        try:
            self.put(host, self.published, key, "yes")
            return self.get(host, self.published, key) == "yes"
        except NoAnswer:
            return False


def _http_program(directory: str) -> tuple[Callable[..., object], Callable[..., str]]:
    def put(host: lab.Host, port: int, key: str, value: str) -> str:
        return http(host, port, f"{directory}{key}", "--request", "PUT", "--data-binary", value)

    def get(host: lab.Host, port: int, key: str) -> str:
        return http(host, port, f"{directory}{key}")

    return put, get


_TABLE = "CREATE TABLE IF NOT EXISTS facts (name VARCHAR(80) PRIMARY KEY, value TEXT); "


def _postgres_put(host: lab.Host, port: int, key: str, value: str) -> str:
    insert = (
        f"INSERT INTO facts VALUES ('{key}', '{value}') ON CONFLICT (name) DO UPDATE SET value = '{value}'"
    )
    return psql(host, port, f"SET client_min_messages = error; {_TABLE}{insert}")


def _mariadb_put(host: lab.Host, port: int, key: str, value: str) -> str:
    return mariadb(host, port, f"{_TABLE}REPLACE INTO facts VALUES ('{key}', '{value}')")


def _select(client: Callable[[lab.Host, int, str], str]) -> Callable[[lab.Host, int, str], str]:
    return lambda host, port, key: client(host, port, f"SELECT value FROM facts WHERE name = '{key}'")[:-1]


_uploads, _notes, _files = _http_program("uploads/"), _http_program("notes/"), _http_program("")

PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "nginx",
            80,
            8081,
            r"signal 3 \(SIGQUIT\) received.*[\s\S]*notice.* exit",
            *_uploads,
            run=("--env", "GREETING=it's 100%  nginx"),
        ),
        Program(
            "postgres",
            5432,
            15432,
            "received fast shutdown request[\\s\\S]*database system is shut down",
            _postgres_put,
            _select(psql),
            run=(
                *("--env", f"POSTGRES_PASSWORD={PASSWORD}", "--env", "POSTGRES_DB=shop"),
                *("--health-cmd", "pg_isready -U postgres", "--health-interval", "2s"),
            ),
            volume="/var/lib/postgresql/data",
            checked=True,
        ),
        Program(
            "redis",
            6379,
            16379,
            "User requested shutdown|Received SIGTERM[\\s\\S]*bye bye",
            lambda host, port, key, value: redis_cli(host, port, "set", key, value),
            lambda host, port, key: redis_cli(host, port, "get", key)[:-1],
            command=("redis-server", "--save", "60", "1", "--protected-mode", "no"),
            volume="/data",
        ),
        Program(
            "mariadb",
            3306,
            13306,
            "mariadbd: Shutdown complete",
            _mariadb_put,
            _select(mariadb),
            run=("--env", f"MARIADB_ROOT_PASSWORD={PASSWORD}", "--env", "MARIADB_DATABASE=shop"),
            volume="/var/lib/mysql",
            checked=True,
        ),
        Program(
            "gunicorn",
            8000,
            18000,
            r"Handling signal: term[\s\S]*Shutting down: Master",
            *_notes,
            volume="/srv/app/data",
            checked=True,
        ),
        Program(
            "static",
            8080,
            18080,
            "ended by its stop signal",
            *_files,
            volume="/data",
            checked=True,
        ),
    )
}
