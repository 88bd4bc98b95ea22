#!/usr/bin/env python3
"""A PostgreSQL of its own for the tests, thrown away afterwards.

Usage: postgres.py run -- COMMAND...   starts a server, runs the command with TEST_POSTGRES_URL, removes the server
       postgres.py start               starts one that stays (or finds the one started before) and prints its URL
       postgres.py stop                removes the one that `start` made
       postgres.py install             only makes sure that PostgreSQL is there

Where PostgreSQL is missing and this is root on Debian or Ubuntu, its package is installed by apt-get. `run` and `install`
leave all that alone if TEST_POSTGRES_URL is set: then that server is used.

TEST_POSTGRES_DURABLE=1 makes a commit wait for the disk. Without it nothing does, which is what makes the tests quick; a
test that stops the server itself, or the machine, wants it.

The files lie in target/postgres, or in the folder for temporary files if the server's user cannot get there: as root, the
server runs as the user `postgres`, because it refuses to be root. Each server has a note in target/postgres that says where
it is. `run` keeps its note locked while it lives, so that the next call knows what a killed run has left behind, and
removes it.
"""

import contextlib
import fcntl
import glob
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOTES = Path(__file__).resolve().parent.parent / "target" / "postgres"
STARTED = "started"
NEEDED = ["initdb", "pg_ctl", "postgres"]
PLACES = ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"]
OLDEST = 13  # the first with DROP DATABASE ... WITH (FORCE)
# As many tests run at once as there are processors, each with a pool or two.
MAX_CONNECTIONS = max(300, 40 * (os.cpu_count() or 1))
# Below the ports that systems hand out by themselves.
PORTS = range(15_000, 32_000)
OWN_SERVER = "or set TEST_POSTGRES_URL to a server whose user may create databases"


class Trouble(Exception):
    """What went wrong, for the person who reads it."""


def say(text):
    """Messages go to standard error: the output of `start` is the URL, that of `run` belongs to its command."""
    print(f"postgres.py: {text}", file=sys.stderr, flush=True)


# What is installed


def version(binaries):
    """The major version of the server in this folder, or None if not all of it is there."""
    if not all(os.access(binaries / name, os.X_OK) for name in NEEDED):
        return None
    answer = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True)
    found = re.search(r"(\d+)", answer.stdout)
    return int(found.group(1)) if found else None


def installed():
    """(version, folder) of the newest PostgreSQL here that is new enough, or None."""
    folders = {Path(folder) for place in PLACES for folder in glob.glob(place)}
    found = shutil.which("postgres")
    if found:
        folders.add(Path(found).resolve().parent)
    servers = [(version(folder), folder) for folder in folders]
    return max((server for server in servers if (server[0] or 0) >= OLDEST), default=None)


def apt_install():
    """Debian's package, without the cluster that it would make and start."""
    say("installing Debian's package postgresql")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    settings = Path("/etc/postgresql-common/createcluster.d")
    settings.mkdir(parents=True, exist_ok=True)
    no_cluster = settings / "throw-away-only.conf"
    no_cluster.write_text("create_main_cluster = false\n")
    said = ""
    try:
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "postgresql"]):
            answer = subprocess.run(
                ["apt-get", "-qq", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            said += answer.stdout
            if answer.returncode != 0:
                raise Trouble(f"apt-get {' '.join(words)} failed; install PostgreSQL, {OWN_SERVER}\n{said}")
    finally:
        no_cluster.unlink(missing_ok=True)


def install():
    """(version, folder) of a PostgreSQL, installed if there was none."""
    server = installed()
    if server:
        return server
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Trouble(f"PostgreSQL {OLDEST} or newer is not here: install it (Debian: apt-get install postgresql), {OWN_SERVER}")
    apt_install()
    server = installed()
    if not server:
        raise Trouble(f"Debian's package has no PostgreSQL {OLDEST} or newer: install one, {OWN_SERVER}")
    return server


# Whose the server is, and where


def account():
    """The user that the server runs as, in the words of `subprocess`; none if it is the present one."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise Trouble(f"the server refuses to run as root, and there is no user `postgres`: add one, {OWN_SERVER}") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def new_folder(account):
    """An empty folder that the server's user can reach and write."""
    parents = [NOTES, tempfile.gettempdir(), "/tmp"]
    for parent in parents:
        folder = Path(tempfile.mkdtemp(prefix="sconce-postgres-", dir=parent))
        if account:
            os.chown(folder, account["user"], account["group"])
        if subprocess.run(["test", "-w", folder], cwd="/", **account).returncode == 0:
            return folder
        folder.rmdir()
    raise Trouble(f"the server's user can reach none of these: {', '.join(map(str, parents))}")


# One server


class Server:
    """A server and its note: `{"folder", "url"}`, the URL once it runs."""

    def __init__(self, note):
        self.note = note
        self.folder, self.url = None, None
        with contextlib.suppress(FileNotFoundError, ValueError):
            known = json.loads(note.read_text())
            self.folder, self.url = Path(known["folder"]), known["url"]

    def write_note(self):
        """In place, because a lock belongs to the file and not to its name; it holds a password."""
        with open(os.open(self.note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"folder": str(self.folder), "url": self.url}, file)

    def process(self):
        """The number of the running server, or None. A number that has since become another's is not taken for it."""
        data = self.folder / "data"
        try:
            number = int((data / "postmaster.pid").read_text().split("\n")[0])
            os.kill(number, 0)
        except (OSError, ValueError):
            return None
        if Path("/proc/self").exists():
            with contextlib.suppress(OSError):
                return number if Path(f"/proc/{number}/cwd").resolve() == data.resolve() else None
            return None
        words = subprocess.run(["ps", "-o", "command=", "-p", str(number)], capture_output=True, text=True).stdout
        return number if str(data) in words else None

    def create(self):
        """Makes the cluster and starts it."""
        release, binaries = install()
        user = account()
        self.folder = new_folder(user)
        self.write_note()
        password = secrets.token_hex(16)
        self.make_cluster(release, binaries, user, password)
        port = self.start(binaries, user)
        self.url = f"postgres://sconce:{password}@127.0.0.1:{port}/postgres"
        self.write_note()

    def call(self, user, *words):
        """Runs a command of PostgreSQL; (whether it worked, what it said)."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        answer = subprocess.run(
            words,
            cwd=self.folder,
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **user,
        )
        return answer.returncode == 0, answer.stdout

    def make_cluster(self, release, binaries, user, password):
        """`initdb`. Texts are sorted as a language does and not by their bytes, as on most people's servers."""
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        if user:
            os.chown(secret, user["user"], user["group"])
        options = ["--username=sconce", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        if release >= 15:
            options += ["--locale-provider=icu", "--icu-locale=en-US"]
        data = self.folder / "data"
        worked, said = self.call(user, binaries / "initdb", f"--pgdata={data}", "--no-sync", *options)
        secret.unlink()
        if not worked:
            raise Trouble(f"initdb failed:\n{said}")
        durable = "on" if os.environ.get("TEST_POSTGRES_DURABLE", "") not in ("", "0") else "off"
        with open(data / "postgresql.conf", "a") as file:
            file.write(
                f"""
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = {MAX_CONNECTIONS}
shared_buffers = '32MB'
fsync = {durable}
synchronous_commit = {durable}
full_page_writes = {durable}
wal_level = minimal
max_wal_senders = 0
jit = off
"""
            )

    def start(self, binaries, user):
        """Starts the server on a free port, and waits until it takes connections."""
        log = self.folder / "log"
        for _ in range(20):
            port = random.choice(PORTS)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    continue
            words = ["start", "--wait", "--timeout=60", f"--pgdata={self.folder / 'data'}", f"--log={log}"]
            worked, said = self.call(user, binaries / "pg_ctl", *words, f"--options=-p {port}")
            if worked:
                return port
            said += log.read_text(errors="replace") if log.exists() else ""
            if "Address already in use" not in said:
                raise Trouble(f"the server did not start:\n{said}")
            log.unlink()
        raise Trouble(f"no free port was found between {PORTS[0]} and {PORTS[-1]}")

    def remove(self):
        """Ends the server at once and removes all of it."""
        if self.folder:
            self.end()
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                say(f"{self.folder} could not be removed")
        self.note.unlink(missing_ok=True)

    def end(self):
        """SIGQUIT: without a checkpoint that nobody needs any more."""
        deadline = time.monotonic() + 10
        number = self.process()
        if number:
            os.kill(number, signal.SIGQUIT)
        while number := self.process():
            if time.monotonic() > deadline:
                say(f"the server (process {number}) does not end: killed")
                os.kill(number, signal.SIGKILL)
                return
            time.sleep(0.01)


# The commands


@contextlib.contextmanager
def alone():
    """One call at a time makes and removes servers."""
    NOTES.mkdir(parents=True, exist_ok=True)
    with open(NOTES / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep():
    """Removes what killed runs have left: the notes that nobody holds."""
    for note in NOTES.glob("run-*.json"):
        # Gone: its run has just ended.
        with contextlib.suppress(BlockingIOError, FileNotFoundError), open(note) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say("removing what an earlier run has left")
            Server(note).remove()


def start():
    """Prints the URL of a server that stays."""
    with alone():
        sweep()
        server = Server(NOTES / f"{STARTED}.json")
        if not (server.url and server.process()):
            server.remove()
            try:
                server.create()
            except BaseException:
                server.remove()
                raise
    print(server.url)
    return 0


def stop():
    """Removes the server that stays."""
    with alone():
        sweep()
        server = Server(NOTES / f"{STARTED}.json")
        say("removed" if server.folder else "there is none")
        server.remove()
    return 0


def run(command):
    """The exit status of the command, run beside a server of its own."""
    if os.environ.get("TEST_POSTGRES_URL"):
        say("TEST_POSTGRES_URL is set: using that server")
        os.execvp(command[0], command)
    child = None

    def interrupted(number, _frame):
        if child is None:
            sys.exit(128 + number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    with contextlib.ExitStack() as at_the_end:
        with alone():
            sweep()
            note = NOTES / f"run-{os.getpid()}.json"
            held = at_the_end.enter_context(open(note, "w"))
            fcntl.flock(held, fcntl.LOCK_EX)
            server = Server(note)
            at_the_end.callback(server.remove)
            server.create()
        # A group of its own, so that a signal reaches also what the command has started.
        environment = os.environ | {"TEST_POSTGRES_URL": server.url}
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        status = child.wait()
    return status if status >= 0 else 128 - status


def main(words):
    """Runs the command of these words; the exit status."""
    if words == ["start"]:
        return start()
    if words == ["stop"]:
        return stop()
    if words == ["install"]:
        if not os.environ.get("TEST_POSTGRES_URL"):
            install()
        return 0
    if words[:2] == ["run", "--"] and words[2:]:
        if not shutil.which(words[2]):
            raise Trouble(f"there is no command `{words[2]}`")
        return run(words[2:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Trouble as trouble:
        say(trouble)
        sys.exit(1)
