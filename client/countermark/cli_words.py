"""What `countermark --help` says below the list of commands: how to begin, the environment, the exit codes.

`docs/reference/countermark.md` shows the same variables, and a test finds every one that the client reads here.
"""

from __future__ import annotations

from typing import Final

from countermark import errors

FIRST_STEPS: Final = (
    ("publisher", "countermark login URL --root-words '...'", "countermark publish dist/*"),
    ("installer", "countermark trust add URL --root-words '...'", "countermark run -- uv sync --frozen"),
    ("auditor", "countermark trust add URL --root-words '...'", "countermark audit URL"),
)
VARIABLES: Final = (
    ("COUNTERMARK_REGISTRY", "URL of the pinned registry that is meant, where several are pinned"),
    ("COUNTERMARK_HOME", "folder of pins, keys and policy, instead of the platform's own"),
    ("COUNTERMARK_PASSPHRASE", "passphrase of the key that signs, where nobody can type it"),
    ("COUNTERMARK_PIN", "PIN of a hardware token that holds a key"),
    ("COUNTERMARK_ID_TOKEN", "a CI job's OIDC token, where its system has no variable for one"),
    ("COUNTERMARK_SIGN_ID_TOKEN", "the same, issued for signing"),
    (
        "COUNTERMARK_READ_TOKENS",
        "URL=TOKEN of registries that are not for everybody, with blanks between them",
    ),
    ("COUNTERMARK_CLIENT_CERTS", "URL=CERTIFICATE,KEY likewise"),
    ("COUNTERMARK_DEBUG", "set: a bug of ours shows its traceback"),
)


def below_the_commands() -> str:
    """The end of the help text."""
    steps = [f"  {who:<10} {first}\n  {'':<10} {then}" for who, first, then in FIRST_STEPS]
    variables = [f"  {name:<25} {what}" for name, what in VARIABLES]
    codes = [line[2:] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    parts = {
        "first steps (the twelve words come from a person, never from the registry):": steps,
        "environment:": variables,
        "exit codes:": codes,
    }
    return "\n\n".join("\n".join([title, *lines]) for title, lines in parts.items())
