"""Settings: one TOML file in the data directory, each value overridable as COUNTERMARK_<SECTION>_<NAME>.

    [registry]
    origin = "registry.example.com/main"
    base_url = "https://registry.example.com"

    [tuf]
    min_interval = 5.0

`COUNTERMARK_TUF_MIN_INTERVAL=0.2` wins over the file. Unknown sections or names, values of the wrong type and
values out of range are refused, with the name of the setting. docs/operations/settings.md is generated from
the descriptions below, and a test fails when it is not.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from countermark.errors import UsageError

PREFIX = "COUNTERMARK_"
TEST_HOSTS = (".test", ".example", ".invalid")  # reserved: such a name can never be somebody's registry


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type or out of range. The message names it."""


def _setting(default: Any, doc: str, *, least: float | None = None, most: float | None = None) -> Any:
    return field(default=default, metadata={"doc": doc, "least": least, "most": most})


@dataclass(frozen=True)
class Registry:
    """Who this registry is."""

    origin: str = _setting("", "the log's origin: a name, never a URL; fixed at `init`")
    base_url: str = _setting("", "the URL clients reach this registry at, without trailing slash")


@dataclass(frozen=True)
class Database:
    """Where rows live."""

    url: str = _setting(
        "",
        "`sqlite:///PATH` or `postgresql+psycopg://USER@HOST/NAME`; empty: `registry.sqlite` in the data directory",
    )


@dataclass(frozen=True)
class Storage:
    """Where bytes live: folders in the data directory, or one bucket of S3-compatible storage."""

    bucket: str = _setting("", "name of the bucket; empty: folders in the data directory")
    endpoint: str = _setting("", "URL of the object store; empty: that of Amazon S3 in the region")
    region: str = _setting("us-east-1", "region that requests are signed for")
    prefix: str = _setting("", "begins the name of every object, without slashes at its ends")
    access_key_id: str = _setting(
        "", "who we are there; empty: the AWS_* variables of the environment say so"
    )
    secret_access_key_file: str = _setting("", "file that holds the secret of `storage.access_key_id`")


@dataclass(frozen=True)
class Web:
    """The web process."""

    listen: str = _setting("127.0.0.1:8080", "HOST:PORT the web process listens on")
    workers: int = _setting(1, "gunicorn worker processes", least=1, most=64)
    threads: int = _setting(
        16, "threads of a worker; an upload waiting for its proof holds one", least=1, most=512
    )
    wait: float = _setting(
        10.0, "seconds an upload may wait for its proof before it is answered 202", least=0, most=60
    )


@dataclass(frozen=True)
class Upload:
    """What may come in."""

    max_bytes: int = _setting(100 * 1024 * 1024, "largest artifact in bytes", least=1024)
    max_unpacked_bytes: int = _setting(1024 * 1024 * 1024, "largest sum of an archive's members", least=1024)
    max_members: int = _setting(20_000, "most members of an archive", least=1)


@dataclass(frozen=True)
class Limits:
    """How much one account, or one project, may bring in. 0: no bound."""

    project_bytes: int = _setting(10 * 1024**3, "largest sum of a project's files in bytes", least=0)
    account_bytes: int = _setting(0, "largest sum in bytes of all that one account uploads", least=0)
    entries_a_day: int = _setting(
        1_000_000, "most entries of the log that one account may cause in a day (UTC)", least=0
    )
    projects_a_day: int = _setting(100, "most projects that one account may begin in a day (UTC)", least=0)
    uploads_a_minute: int = _setting(
        1200, "most uploads of one account within a minute; each web process counts apart", least=0
    )
    release_open_days: int = _setting(
        14,
        "days from a release's first file in which it takes further files; later ones are refused",
        least=0,
    )
    confusable_names: bool = _setting(
        False, "take new projects whose names read like another's, or like a module of Python"
    )


@dataclass(frozen=True)
class Oidc:
    """Signing people in by an identity provider (OpenID Connect). Without `issuer`: by one-time codes alone."""

    issuer: str = _setting("", "the provider's issuer URL, as it spells it; https, or http on this machine")
    client_id: str = _setting("", "who this registry is there")
    client_secret_file: str = _setting("", "file that holds the client's secret; empty: a public client")
    groups_claim: str = _setting("groups", "claim of the ID token that lists a person's groups")
    groups: str = _setting("", "groups, separated by blanks, whose members may sign in; empty: everybody")
    admin_groups: str = _setting(
        "", "groups whose members have the role `admin` for as long as they are in one"
    )
    moderator_groups: str = _setting("", "groups whose members have the role `moderator`, likewise")


@dataclass(frozen=True)
class Ci:
    """Whose jobs may publish without a stored secret, where a project trusts them. Without `issuers`: nobody's."""

    issuers: str = _setting(
        "",
        "`github`, `gitlab`, `buildkite`, `google`, or `KIND=URL` of one that is elsewhere, separated by blanks; "
        "kinds are these four, `circleci`, and `claims` for any other issuer",
    )
    audience: str = _setting("", "for whom the jobs' tokens must be made; empty: the log's origin")
    claims: str = _setting(
        "",
        "for issuers of kind `claims`: `NAME=CLAIM` for repository, repository_id, workflow, ref, run, sha, actor",
    )


@dataclass(frozen=True)
class Access:
    """Who may read: simple pages, files, log, TUF and the pages for people alike."""

    mode: str = _setting(
        "public", "`public`, `token` (a token that may read) or `mtls` (a client certificate)"
    )
    public_checkpoint: bool = _setting(
        False, "let everybody read the log's checkpoint all the same, for witnesses elsewhere"
    )
    proxies: str = _setting(
        "127.0.0.1 ::1", "addresses, separated by blanks, from which `mtls` believes the proxy's words"
    )
    proxy_secret_file: str = _setting(
        "",
        "file with what the proxy proves itself with, below the data directory unless absolute; `mtls` needs it",
    )
    reader_sha256: str = _setting(
        "", "SHA-256 in hex of the secret with which the registry's own processes read; empty: none does"
    )


@dataclass(frozen=True)
class Log:
    """The sequencer."""

    poll_interval: float = _setting(
        0.005, "seconds between looks for new proposals of which nobody told", least=0.0005, most=5
    )
    batch: int = _setting(1024, "most entries of one round; it takes what waits", least=1, most=4096)
    witness_timeout: float = _setting(2.0, "seconds a witness may take", least=0.05, most=60)
    keys: str = _setting(
        "1", "numbers of the key sets that sign, with blanks between them: two while one follows another"
    )
    witness_urls: str = _setting("", "`NAME=URL` of each witness of the policy, separated by blanks")
    metrics: str = _setting("127.0.0.1:0", "HOST:PORT of the log process's metrics; port 0 picks a free one")


@dataclass(frozen=True)
class Entries:
    """What comes in without a file: signed statements, one or many in a request."""

    batch_max: int = _setting(4096, "most statements of one batch", least=1, most=20_000)
    batch_max_bytes: int = _setting(
        16 * 1024 * 1024, "largest batch in bytes; a signed publish has about 1.5 kB", least=64 * 1024
    )
    queue_max: int = _setting(
        20_000, "most entries that wait for the log; beyond, doors answer 503 and take nothing", least=1
    )


@dataclass(frozen=True)
class Scan:
    """The scan station."""

    poll_interval: float = _setting(
        0.02, "seconds between looks for work; idle, up to 0.15", least=0.001, most=60
    )
    cpu_seconds: int = _setting(20, "CPU seconds of one sandboxed child", least=1, most=600)
    memory_bytes: int = _setting(
        512 * 1024 * 1024, "address space of one sandboxed child", least=64 * 1024 * 1024
    )
    wall_seconds: float = _setting(60.0, "seconds one sandboxed child may live", least=1, most=600)
    sigstore_root: str = _setting(
        "", "trusted root of Sigstore, a file below the data directory; empty: that of the extra `sigstore`"
    )
    metrics: str = _setting("127.0.0.1:0", "HOST:PORT of the scan process's metrics")


@dataclass(frozen=True)
class Tuf:
    """The online TUF roles bins and snapshot."""

    min_interval: float = _setting(
        5.0, "seconds between two TUF publishes at the least", least=0.05, most=3600
    )
    heartbeat: float = _setting(
        3600.0, "seconds after which an idle registry gets a new timestamp", least=1, most=3600
    )
    bins_key: str = _setting(
        "keyfile:keys/bins.json",
        "URI of the key that signs bins; several with blanks between them while one follows another",
    )
    snapshot_key: str = _setting(
        "keyfile:keys/snapshot.json", "URI of the key that signs snapshots; several as above"
    )
    pin_file: str = _setting("keys/pin", "file with the PIN of a token that holds these two keys")
    retention: float = _setting(
        604_800.0, "seconds for which a replaced snapshot or bin stays; mirrors rely on it", least=10_800
    )
    poll_interval: float = _setting(
        0.02, "seconds between looks for work; idle, up to 0.15", least=0.001, most=60
    )
    metrics: str = _setting("127.0.0.1:0", "HOST:PORT of the tufrepo process's metrics")


@dataclass(frozen=True)
class Timestamper:
    """The timestamper: its own process, its own key."""

    listen: str = _setting("127.0.0.1:8081", "HOST:PORT the timestamper serves its timestamp and metrics on")
    key: str = _setting(
        "keyfile:timestamper/timestamp.json",
        "URI of the key that signs timestamps; several with blanks between them, and all of them sign",
    )
    pin_file: str = _setting("timestamper/pin", "file with the PIN of a token that holds this key")
    registry_url: str = _setting("", "where it reads the registry; empty: `registry.base_url`")
    fence: str = _setting(
        "",
        "where the numbers of timestamps are won: a folder that the standby sees too, or `bucket` for that of "
        "`storage`; empty: a folder of its own, for one timestamper alone",
    )
    poll_interval: float = _setting(
        0.05, "seconds between looks for a new candidate; idle, up to 0.15", least=0.001, most=60
    )
    retry_interval: float = _setting(
        2.0, "seconds from a refusal to the next attempt: what is missing may arrive", least=0.05, most=60
    )


@dataclass(frozen=True)
class Telemetry:
    """What the processes say about themselves."""

    level: str = _setting("info", "debug, info, warning or error")
    format: str = _setting("json", "json, or text for people")


@dataclass(frozen=True)
class Testing:
    """What only a registry under test may do: its origin's host ends in .test, .example or .invalid."""

    raw_add: bool = _setting(
        False,
        "a log for load tests: it begins empty, takes raw bytes at `POST /log/add`, and nothing else, for ever",
    )


@dataclass(frozen=True)
class Settings:
    """Everything an operator may set. `data` is the data directory and comes from the command line."""

    data: Path
    registry: Registry = Registry()
    database: Database = Database()
    storage: Storage = Storage()
    web: Web = Web()
    upload: Upload = Upload()
    limits: Limits = Limits()
    oidc: Oidc = Oidc()
    ci: Ci = Ci()
    access: Access = Access()
    log: Log = Log()
    entries: Entries = Entries()
    scan: Scan = Scan()
    tuf: Tuf = Tuf()
    timestamper: Timestamper = Timestamper()
    telemetry: Telemetry = Telemetry()
    testing: Testing = Testing()

    @property
    def database_url(self) -> str:
        """The database's URL, with the default filled in."""
        return self.database.url or f"sqlite:///{self.data / 'registry.sqlite'}"

    @property
    def public(self) -> Path:
        """Static trees that anyone may read: `log/` and `tuf/`."""
        return self.data / "public"

    @property
    def keys(self) -> Path:
        """Encrypted online keys; only this service's account may read them."""
        return self.data / "keys"


SECTIONS: dict[str, type[Any]] = {
    "registry": Registry,
    "database": Database,
    "storage": Storage,
    "web": Web,
    "upload": Upload,
    "limits": Limits,
    "oidc": Oidc,
    "ci": Ci,
    "access": Access,
    "log": Log,
    "entries": Entries,
    "scan": Scan,
    "tuf": Tuf,
    "timestamper": Timestamper,
    "telemetry": Telemetry,
    "testing": Testing,
}


def load(data: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `data/settings.toml`, then the environment. Raises SettingsError; nothing is guessed."""
    path = data / "settings.toml"
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    if unknown := sorted(set(given) - set(SECTIONS)):
        raise SettingsError(f"{path}: unknown section [{unknown[0]}]")
    parts = {name: _section(name, cls, given.get(name, {}), environ, path) for name, cls in SECTIONS.items()}
    settings = Settings(data=data, **parts)
    if settings.testing.raw_add and not is_test_origin(settings.registry.origin):
        raise SettingsError(
            f"testing.raw_add is set, and registry.origin is {settings.registry.origin!r}",
            hint="a log that takes raw bytes is for origins whose host ends in .test, .example or .invalid",
        )
    return settings


def is_test_origin(origin: str) -> bool:
    """Whether this origin's host is a name that can't be anybody's."""
    return origin.split("/", 1)[0].split(":", 1)[0].endswith(TEST_HOSTS)


def _section(name: str, cls: type[Any], given: Any, environ: Mapping[str, str], path: Path) -> Any:
    known = {f.name: f for f in fields(cls)}
    if not isinstance(given, dict):
        raise SettingsError(f"{path}: {name} must be a section")
    if unknown := sorted(set(given) - set(known)):
        raise SettingsError(f"{path}: unknown setting {name}.{unknown[0]}")
    values: dict[str, Any] = {}
    for key, spec in known.items():
        variable = f"{PREFIX}{name}_{key}".upper()
        if variable in environ:
            values[key] = _value(spec, environ[variable], variable, parse=True)
        elif key in given:
            values[key] = _value(spec, given[key], f"{name}.{key}", parse=False)
    return cls(**values)


def _value(spec: Field[Any], given: Any, where: str, *, parse: bool) -> Any:
    assert spec.default is not MISSING
    kind = type(spec.default)
    if parse and kind is bool:
        given = {"true": True, "false": False}.get(given, given)
    elif parse and kind is not str:
        try:
            given = kind(given)
        except ValueError:
            raise SettingsError(f"{where} must be a {kind.__name__}, not {given!r}") from None
    if kind is float and type(given) is int:
        given = float(given)
    if type(given) is not kind:
        raise SettingsError(f"{where} must be a {kind.__name__}, not {given!r}")
    least, most = spec.metadata["least"], spec.metadata["most"]
    if (least is not None and not given >= least) or (most is not None and not given <= most):
        raise SettingsError(f"{where} is {given}, must be between {least} and {most or 'any size'}")
    return given
