"""`up`: a whole registry from one command: a witness, log, timestamper, tufrepo, scan and web.

    witness      ready   http://127.0.0.1:40713
    log          ready   size 0
    ...
    ready        https://registry.example.com

The same programs that a larger installation starts one by one, as children of this process, on loopback; only
the web process listens where `--listen` says. Addresses and process ids are in run/*.json. A child that ends
by itself ends everything, with its name: nothing is restarted silently, since a log that stopped had a reason.

Before that, an uninitialised directory gets what it needs: `--ceremony OUT` adopts a finished ceremony;
`--trial` plays one with fresh keys and a root that says so for ever.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from countermark.credentials import Credentials, origin
from countermark.errors import NetworkError, UsageError
from countermark.fetch import HttpFetcher
from countermark_server import telemetry
from countermark_server.operate import adoption
from countermark_server.operate.initialise import INPUT_FILE, WITNESS, initialise
from countermark_server.operate.processes import ChildDiedError, Children, free_port
from countermark_server.settings import Settings, load
from countermark_server.stores import places
from countermark_server.stores.public import CHECKPOINT, TIMESTAMP

TRIAL_ORIGIN = "registry.test/trial"
TRIAL_OUTPUT, ROOT_WORDS = "ceremony", "root-words.txt"  # where a played ceremony leaves its words
TRIAL_BIT_LENGTH = 8  # 256 bins: a trial holds a handful of files, and is ready seconds sooner
LOG_HEARD_SECONDS = 20.0  # longer than the log waits for its witnesses before it refuses to start
READY_SECONDS = 60.0
SCAN_NICE = 10  # examining can wait; whoever uploads is waiting for a proof
FIRST = ("web", "scan", "tufrepo", "timestamper")  # stopped first; then the log, then its witness
ALREADY_UP = (
    "run/up.lock is held: stop the other with Ctrl-C where it runs; run/*.json says what answers where"
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What was asked on the command line."""

    data: Path
    listen: str
    ceremony: Path | None = None
    trial: bool = False
    origin: str = TRIAL_ORIGIN
    bit_length: int = TRIAL_BIT_LENGTH
    accept_unwitnessed: bool = False


def prepare(request: Request, say: Say) -> Settings:
    """The settings of a directory that is initialised and has adopted a ceremony; makes it so when asked."""
    data = request.data
    if not (data / "settings.toml").exists():
        if not request.trial:
            raise UsageError(
                f'"{data}" is not initialised',
                hint="countermark-server init --data DIR --origin NAME, then hold a ceremony; or `--trial`",
            )
        made = initialise(data, request.origin, bit_length=request.bit_length)
        say(f"initialised {request.origin} in {made.data}")
    settings = load(data)
    if adoption.is_adopted(settings):
        if request.ceremony is not None:
            adoption.check_same(settings, request.ceremony)
        if (words := data / TRIAL_OUTPUT / ROOT_WORDS).exists():  # of a real ceremony, its people have them
            say(f"root words: {words.read_text('utf-8').strip()}")
        return settings
    output = request.ceremony
    if output is None and request.trial:
        output = _trial_ceremony(data, say)
    if output is None:
        raise UsageError(
            f"{settings.registry.origin} has no root yet: hold a ceremony with {data / INPUT_FILE}",
            hint="then: countermark-server up --data DIR --listen HOST:PORT --ceremony OUT; or `--trial`",
        )
    adopted = adoption.adopt(settings, output, now=int(time.time()))
    say(f"adopted the ceremony in {output}")
    say(f"root words: {adopted.words}")
    return settings


def _trial_ceremony(data: Path, say: Say) -> Path:
    output = data / TRIAL_OUTPUT
    shutil.rmtree(output, ignore_errors=True)  # of an earlier try that was never adopted
    argv = [sys.executable, "-m", "countermark_ceremony.cli", "trial", str(data / INPUT_FILE), "--out"]
    done = subprocess.run([*argv, str(output)], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise UsageError(f"the trial ceremony failed: {done.stderr.strip()}")
    say("trial ceremony: its keys are on this machine, every client says `trial registry`")
    return output


def run(request: Request, stop: threading.Event, say: Say) -> None:
    """Prepare, start everything, wait until `stop`. ChildDiedError: something ended by itself."""
    started = time.monotonic()
    if not (request.data / "run" / "up.lock").exists():
        check_listen(request.listen)  # before anything is made
    settings = prepare(request, say)
    with only_one(settings.data):
        check_listen(request.listen)
        registry = _Registry(settings, request, stop, say)
        try:
            if registry.start():
                registry.announce(time.monotonic() - started)
                registry.watch()
        finally:
            registry.stop()


class _Registry:
    """The processes of one running registry."""

    def __init__(self, settings: Settings, request: Request, stop: threading.Event, say: Say) -> None:
        host, _, port = request.listen.rpartition(":")
        reachable = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # noqa: S104  (compared, not bound)
        self.local = f"http://{reachable}:{port}"
        self.base_url = settings.registry.base_url or self.local
        self.data, self.run = settings.data, settings.data / "run"
        self.public = places.public(settings)
        self.raw = settings.testing.raw_add
        self.request, self.stopping, self.say = request, stop, say
        self.children = Children(self.run)
        # Where reading is not for everybody, our own processes read with a secret that lives as long as they do.
        self.secret = "" if settings.access.mode == "public" else secrets.token_urlsafe(32)
        shown = {origin(self.local): f"Bearer {self.secret}"} if self.secret else {}
        self.fetcher = HttpFetcher(credentials=Credentials(shown))
        self.witness_urls = settings.log.witness_urls  # whoever names witnesses names all of them
        self.witness = f"http://127.0.0.1:{free_port()}"
        self.timestamper = f"127.0.0.1:{free_port()}"

    def environment(self) -> dict[str, str]:
        """What the children are told beside the settings file; a COUNTERMARK_* of ours passes through."""
        multiprocess = self.run / "prometheus"
        shutil.rmtree(multiprocess, ignore_errors=True)
        multiprocess.mkdir(parents=True)
        ours = {
            "COUNTERMARK_DATA": str(self.data.resolve()),
            "COUNTERMARK_WEB_LISTEN": self.request.listen,
            "COUNTERMARK_REGISTRY_BASE_URL": self.base_url,
            "COUNTERMARK_TIMESTAMPER_LISTEN": self.timestamper,
            "COUNTERMARK_TIMESTAMPER_REGISTRY_URL": self.local,
            "PYTHONUNBUFFERED": "1",
        }
        if self.secret:
            ours["COUNTERMARK_ACCESS_READER_SHA256"] = hashlib.sha256(self.secret.encode()).hexdigest()
            ours["COUNTERMARK_READ_TOKENS"] = f"{self.local}={self.secret}"
        own = {} if self.witness_urls else {"COUNTERMARK_LOG_WITNESS_URLS": f"{WITNESS}={self.witness}"}
        return {**os.environ, **ours, **own}

    def start(self) -> bool:
        """Everything at once: each waits for what it needs. False when told to stop meanwhile."""
        python, env, data = sys.executable, self.environment(), str(self.data)
        server = [python, "-m", "countermark_server.cli"]
        gunicorn = [python, "-m", "gunicorn", "--config", "python:countermark_server.gunicorn_conf"]
        listen = self.witness.removeprefix("http://")
        witness = [python, "-m", "countermark", "witness", "run", "--dir", str(self.data / "witness")]
        timestamper = [python, "-m", "countermark_server.timestamper", "--data", data]
        log = ["--accept-unwitnessed-start"] if self.request.accept_unwitnessed else []
        for name in ("log", "scan", "tufrepo"):
            for stale in (f"{name}.json", f"{name}.ready.json"):
                (self.run / stale).unlink(missing_ok=True)
        self.children.start("witness", [*witness, "--listen", listen], env)
        web = {**env, "PROMETHEUS_MULTIPROC_DIR": str((self.run / "prometheus").resolve())}
        self.children.start("web", [*gunicorn, "countermark_server.wsgi:app"], web)
        self.children.start("log", [*server, "work", "log", "--data", data, *log], env)
        if self.raw:  # no entry to scan, nothing that TUF could list
            self._record()
            return self._ready_log()
        self.children.start("tufrepo", [*server, "work", "tufrepo", "--data", data], env)
        address = ["--listen", self.timestamper, "--registry", self.local]
        self.children.start("timestamper", [*timestamper, *address], env)
        self.children.start("scan", [*server, "work", "scan", "--data", data], env, nice=SCAN_NICE)
        self._record()
        healthz = f"http://{self.timestamper}/healthz"
        if self.public.read(TIMESTAMP) is None:
            self.say("first start    every bin is signed once, which can take a minute")
        try:
            return self._ready_all(healthz)
        except ChildDiedError as error:
            raise self._cause(error) from None

    def _cause(self, error: ChildDiedError) -> ChildDiedError:
        """Why the start failed. A log that refuses says why; whoever ended before it only stumbled over the same."""
        deadline = time.monotonic() + LOG_HEARD_SECONDS
        heard = self.run / "log.ready.json"
        while not (heard.exists() or self.children.ended("log") or time.monotonic() > deadline):
            if self.stopping.wait(0.05):
                break
        try:
            self.children.check()
        except ChildDiedError as first:  # in the order in which they were started: the log is before tufrepo
            return first
        return error

    def _ready_all(self, healthz: str) -> bool:
        return (
            self._ready_log()
            and self._ready("timestamper", lambda: self._answers(healthz), f"http://{self.timestamper}")
            and self._ready("scan", (self.run / "scan.json").exists, "")
            and self._ready("tufrepo", (self.run / "tufrepo.json").exists, "")
            and self._wait("the first checkpoint", lambda: self.public.read(CHECKPOINT) is not None)
            and self._wait("the first timestamp", lambda: self.public.read(TIMESTAMP) is not None)
        )

    def _ready_log(self) -> bool:
        return (
            self._ready("witness", lambda: self._answers(f"{self.witness}/metrics"), self.witness)
            and self._ready("log", (self.run / "log.ready.json").exists, "sequencing")
            and self._ready("web", lambda: self._answers(f"{self.local}/healthz"), self.local)
        )

    def announce(self, seconds: float) -> None:
        """What a person needs to know now."""
        self.say("1 witness, same operator: says nothing about split views")
        if self.raw:
            self.say(f"raw log        POST {self.base_url}/log/add   (testing.raw_add: nothing else writes)")
        else:
            self.say(f"simple index   {self.base_url}/simple/")
            self.say(f"uploads        {self.base_url}/legacy/")
        self.say(f"log            {self.base_url}/log/checkpoint")
        if not self.raw:
            self.say(f"a person       countermark-server login-code --data {self.data} --login NAME")
            self.say(f"signs in       countermark login {self.base_url} --root-words '...'")
        self.say(f"ready          {self.base_url}  ({seconds:.1f} s)")

    def watch(self) -> None:
        """Until told to stop, or something ends."""
        while not self.stopping.wait(0.2):
            try:
                self.children.check()
            except ChildDiedError:
                if not self.stopping.is_set():  # a terminal's ^C reaches children as well
                    raise

    def stop(self) -> None:
        """Doors first, then the log, then its witness: whoever was asked something can still answer."""
        self.fetcher.close()  # the web process lingers for seconds on a connection that its client keeps alive
        killed = self.children.stop(FIRST)
        killed += self.children.stop(["log"])
        killed += self.children.stop(["witness"])
        for name in killed:
            self.say(f"{name} did not end in time and was killed; the next start recovers what it left")

    def _record(self) -> None:
        addresses = {"witness": self.witness, "web": self.local}  # the others record themselves
        for name, pid in self.children.pids().items():
            if name in addresses:
                telemetry.record(self.run, name, {"pid": pid, "url": addresses[name]})

    def _ready(self, name: str, ready: Callable[[], bool], where: str) -> bool:
        if self._wait(name, ready):
            self.say(f"{name:<14} ready  {where}".rstrip())
            return True
        return False

    def _wait(self, what: str, ready: Callable[[], bool]) -> bool:
        return self.children.wait_until(what, ready, seconds=READY_SECONDS, stop=self.stopping)

    def _answers(self, url: str) -> bool:
        try:
            return self.fetcher.get(url) is not None
        except NetworkError:
            return False


def check_listen(listen: str) -> None:
    """UsageError unless the web process can listen there."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--listen {listen!r} must be HOST:PORT")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {listen}: {error.strerror}", hint="another address: --listen HOST:PORT"
            ) from None


@contextmanager
def only_one(data: Path) -> Iterator[None]:
    """One `up` for a data directory at a time."""
    (data / "run").mkdir(exist_ok=True)
    with (data / "run" / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f'"{data}" is up already', hint=ALREADY_UP) from None
        yield
