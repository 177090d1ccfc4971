"""Organisations: a strict file and the same rows, whose a name is, and who may do what where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import event, select

from countermark.errors import UsageError
from countermark.rules_state import new_holder
from countermark_server import cli_orgs, db, jsontext, migrations, orgtables
from countermark_server.accounts import orgapply, orgfile
from countermark_server.accounts.codes import create_login_code
from countermark_server.accounts.organisations import check_name, granted, has_role, role_in
from countermark_server.accounts.people import add_account, find_account
from countermark_server.cli import commands
from countermark_server.errors import ServerError
from countermark_server.ruleview import encode_key

FILE = """\
[[organisation]]
name = "acme"
owners = ["ada@example.com"]
names = ["acme-*", "acmelib", "corp/*"]

[[organisation.team]]
name = "ml"
members = ["grace@example.com"]
groups = ["ml-developers"]
maintains = ["acme-ml-*"]
owns = ["acme-ml-core"]

[[organisation]]
name = "umbrella"
owners = ["ümit \\"the cat\\" öz"]
names = ["acme-umbrella-*"]
"""
PEOPLE = ("ada@example.com", "grace@example.com", 'ümit "the cat" öz', "eve@example.com")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as commands find it, with some people."""
    return initialised(tmp_path, f"sqlite:///{tmp_path / 'x.sqlite'}")


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Path:
    """The same, on both databases."""
    return initialised(tmp_path, database_url)


def initialised(tmp_path: Path, database_url: str) -> Path:
    (tmp_path / "settings.toml").write_text(f'[database]\nurl = "{database_url}"\n', "utf-8")
    engine = db.open_engine(database_url)
    migrations.upgrade(engine)
    with db.write(engine) as connection:
        for login in PEOPLE:
            add_account(connection, login, now=1)
    (tmp_path / "organisations.toml").write_text(FILE, "utf-8")
    return tmp_path


def run(data: Path, *words: str) -> Result:
    group, name, *rest = words
    return CliRunner().invoke(commands, [group, name, "--data", str(data), *rest])


def engine_of(data: Path) -> db.Engine:
    url = (data / "settings.toml").read_text("utf-8").split('"')[1]
    return db.open_engine(url)


def account(connection: db.Connection, login: str) -> str:
    found = find_account(connection, login)
    assert found is not None
    return found.id


def rows(data: Path) -> object:
    with db.read(engine_of(data)) as connection:
        return [
            sorted(map(tuple, connection.execute(select(table))))
            for table in orgtables.metadata.sorted_tables
        ]


def test_a_file_is_applied_exported_and_applied_again(either: Path) -> None:
    """A dry run changes nothing; the export is the file; the second time there is nothing to do."""
    data, file = either, either / "organisations.toml"
    before = rows(data)
    dry = run(data, "org", "apply", str(file), "--dry-run")
    assert dry.exit_code == 0 and "+ acme: team ml: maintains acme-ml-*" in dry.stdout.splitlines()
    assert "none of them made" in dry.stderr and rows(data) == before
    done = run(data, "org", "apply", str(file))
    assert done.stdout == dry.stdout and rows(data) != before
    exported = run(data, "org", "export").stdout
    assert orgfile.parse(exported) == orgfile.parse(FILE)
    file.write_text(exported, "utf-8")
    applied = rows(data)
    again = run(data, "org", "apply", str(file))
    assert again.stdout == "" and "0 changes" in again.stderr and rows(data) == applied
    assert run(data, "org", "export").stdout == exported


def test_a_file_that_was_applied_by_a_process_that_died_is_told_to_the_log_by_the_next(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are committed and the log heard nothing: the same file has nothing to change, and tells it."""
    told = list[Path]()

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    file = data / "organisations.toml"
    monkeypatch.setattr(cli_orgs, "_settle", killed)
    assert run(data, "org", "apply", str(file)).exit_code != 0
    monkeypatch.setattr(cli_orgs, "_settle", told.append)
    again = run(data, "org", "apply", str(file))
    assert again.exit_code == 0 and "0 changes" in again.stderr and told == [data]
    assert run(data, "org", "apply", str(file), "--dry-run").exit_code == 0 and told == [data]


def test_what_a_file_leaves_out_of_an_organisation_goes_and_other_organisations_stay(data: Path) -> None:
    """The file is the whole truth about those it names, and says nothing of the others."""
    file = data / "organisations.toml"
    run(data, "org", "apply", str(file))
    file.write_text(
        '[[organisation]]\nname = "acme"\nowners = ["ada@example.com"]\nnames = ["acme-*"]\n', "utf-8"
    )
    done = run(data, "org", "apply", str(file))
    assert "- acme: team ml: member grace@example.com" in done.stdout and "+" not in done.stdout
    assert "umbrella" in done.stderr and "umbrella" in run(data, "org", "export").stdout
    taken = '[[organisation]]\nname = "acme"\nowners = ["ada@example.com"]\nnames = ["acme-umbrella-*"]\n'
    file.write_text(taken, "utf-8")
    before = rows(data)
    refused = run(data, "org", "apply", str(file))
    assert "acme-umbrella-* is of umbrella" in str(refused.exception) and rows(data) == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "ml"', 'name = "ml"\nnmembers = []', "acme: team ml: unknown word 'nmembers'"),
        ("[[organisation]]", 'colour = "red"\n[[organisation]]', "the file: unknown word 'colour'"),
        ('owners = ["ada@example.com"]', "", "acme has no owners"),
        ('owners = ["ada@example.com"]', 'owners = "ada@example.com"', "must be a list of texts"),
        ('"acmelib"', '"Acme.Lib"', "write 'Acme.Lib' as 'acme-lib'"),
        ('"acmelib"', '"*"', "would be every name"),
        ('"acmelib"', '"acme-*"', "is said twice"),
        ('"acmelib"', '"acme-umbrella-*"', "is given to acme and to umbrella"),
        ('"acme-ml-core"', '"acme-ml-*"', "maintains acme-ml-* and owns it, too"),
        ('name = "umbrella"', 'name = "acme"', "organisation 'acme' is said twice"),
        ('name = "acme"', 'name = "Acme Inc."', "a name has 1 to 64"),
        ("[[organisation]]", "[[organisation", "not TOML"),
    ],
)
def test_a_file_is_strict(old: str, new: str, words: str) -> None:
    """One wrong word, and nothing of the file is taken; the refusal says where it stands."""
    with pytest.raises(UsageError, match=re.escape(words)):
        orgfile.parse(FILE.replace(old, new, 1))


def test_who_is_named_must_be_a_person_here(data: Path) -> None:
    """No login is made by a file, and an organisation is no person; nothing of the file is taken."""
    before, file = rows(data), data / "organisations.toml"
    for login in ("nobody@example.com", "organisation/acme"):
        file.write_text(FILE.replace("grace@example.com", login), "utf-8")
        done = run(data, "org", "apply", str(file))
        assert isinstance(done.exception, UsageError) and f"person: {login}" in str(done.exception)
    file.write_text(FILE + "colour = 1\n", "utf-8")
    assert "unknown word 'colour'" in str(run(data, "org", "apply", str(file)).exception)
    assert rows(data) == before


NAMES = [
    ("", "acme-demo", "acme-*"),
    ("", "acme-ml-x", "acme-*"),
    ("", "acme-umbrella-x", "acme-umbrella-*"),  # the longer pattern
    ("", "acmelib", "acmelib"),
    ("", "acmelibs", None),
    ("", "acme", None),
    ("", "acmedemo", None),
    ("corp", "", "corp/*"),
    ("corp", "demo", "corp/*"),
    ("other", "acme-demo", None),
    ("", "acrne-demo", "acme-*"),  # read as one of these
    ("", "acme1ib", "acmelib"),
]


def test_whose_a_name_is(data: Path) -> None:
    """The longest pattern that fits; with what people misread, but for where operators allow that."""
    run(data, "org", "apply", str(data / "organisations.toml"))
    with db.read(engine_of(data)) as connection:
        for namespace, project, whose in NAMES:
            grant = granted(connection, namespace, project, alike=True)
            assert (grant.pattern if grant else None) == whose, project
            plain = granted(connection, namespace, project)
            assert plain == (None if project in ("acrne-demo", "acme1ib") else grant), project


def test_who_may_begin_a_name(either: Path) -> None:
    """An organisation's owners all of its names; a team what it was given; nobody else any, and they hear whose."""
    data = either
    run(data, "org", "apply", str(data / "organisations.toml"))
    with db.write(engine_of(data)) as connection:
        ada, grace, eve = (account(connection, f"{who}@example.com") for who in ("ada", "grace", "eve"))
        for who, project in ((ada, "acme-demo"), (ada, "acme-ml-x"), (grace, "acme-ml-x"), (eve, "other")):
            check_name(connection, "", project, who)
        for who, project in (
            (grace, "acme-demo"),
            (eve, "acme-ml-x"),
            (ada, "acme-umbrella-x"),
            (eve, "acrne-x"),
        ):
            with pytest.raises(ServerError, match=r"the organisation '(acme|umbrella)'") as refusal:
                check_name(connection, "", project, who)
            assert refusal.value.code == "name-granted" and "@" not in refusal.value.detail
        roles = [role_in(connection, who, "", "acme-ml-core") for who in (ada, grace, eve)]
        assert [role.role if role else None for role in roles] == ["owner", "owner", None]
        maintains = role_in(connection, grace, "", "acme-ml-x")
        assert maintains is not None and maintains.role == "maintainer"
        # Somebody whom the provider counts to a group of the team, for as long as it vouches for them.
        connection.execute(orgtables.identity_group.insert().values(account_id=eve, name="ml-developers"))
        assert role_in(connection, eve, "", "acme-ml-x") is None
        identity = {"issuer": "i", "subject": "eve", "account_id": eve, "refresh": "", "checked": 1}
        connection.execute(db.identity.insert().values(**identity))
        check_name(connection, "", "acme-ml-x", eve)
        connection.execute(db.identity.update().values(gone=5))
        assert role_in(connection, eve, "", "acme-ml-x") is None


def test_nobody_signs_in_as_an_organisation(data: Path) -> None:
    """Its account stands in the log; no code is made for it, and it owns no service account."""
    run(data, "org", "apply", str(data / "organisations.toml"))
    with db.write(engine_of(data)) as connection, pytest.raises(UsageError, match="nobody signs in"):
        create_login_code(connection, "organisation/acme", now=1)
    made = run(data, "account", "service", "bot", "--owner", "organisation/acme", "--days", "1")
    assert "is no account of a person" in str(made.exception)


def test_the_first_admin_is_made_by_the_operator(data: Path) -> None:
    """Granted, listed, taken back; for people alone, and told when there is nothing to take back."""
    granted_ = run(data, "admin", "grant", "ada@example.com")
    assert "ada@example.com is admin" in granted_.stderr
    assert "already" in run(data, "admin", "grant", "ada@example.com").stderr
    run(data, "admin", "grant", "grace@example.com", "--role", "moderator")
    assert run(data, "admin", "list").stdout.splitlines() == [
        "admin      operator  ada@example.com",
        "moderator  operator  grace@example.com",
    ]
    with db.read(engine_of(data)) as connection:
        assert has_role(connection, account(connection, "ada@example.com"), "admin")
    assert "is no admin" in run(data, "admin", "revoke", "ada@example.com").stderr
    assert "was not granted" in str(run(data, "admin", "revoke", "ada@example.com").exception)
    assert "no account of a person" in str(run(data, "admin", "grant", "nobody").exception)


def test_a_grant_takes_nothing_away_and_says_so(data: Path) -> None:
    """A project that stood there before is named, with who owns it in the log."""
    with db.write(engine_of(data)) as connection:
        eve = account(connection, "eve@example.com")
        key = encode_key(("project", "", "acme-ml-old"))
        value = jsontext.encode(new_holder({eve: "owner"}))
        connection.execute(db.rules_state.insert().values(key=key, value=value))
        connection.execute(db.project_name.insert().values(skeleton="x", project="acme-ml-old"))
    done = run(data, "org", "apply", str(data / "organisations.toml"))
    assert "acme-ml-old (acme-* of acme) is of eve@example.com in the log" in done.stderr
    with db.read(engine_of(data)) as connection:
        assert orgapply.stored(connection) == orgfile.parse(FILE)


def test_owners_of_all_granted_projects_are_asked_for_at_once(either: Path) -> None:
    """However many projects there are, the same few questions."""
    engine, asked = engine_of(either), list[str]()
    names = [f"acme-{number}" for number in range(30)]
    with db.write(engine) as connection:
        for name in names:
            value = jsontext.encode(new_holder({"0" * 32: "owner"}))
            connection.execute(
                db.rules_state.insert().values(key=encode_key(("project", "", name)), value=value)
            )
            connection.execute(db.project_name.insert().values(skeleton=name, project=name))
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    with db.read(engine) as connection:
        said = orgapply.strangers(connection, orgfile.parse(FILE))
    assert [line.split()[0] for line in said] == sorted(names)
    assert len(asked) == 4, asked
