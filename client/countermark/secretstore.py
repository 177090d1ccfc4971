"""Where the secrets of a sign-in lie: in the system's keyring where there is one, else in a file of its own.

    found = find_keyring("auto")          # Keyring(...), or Absent("the package keyring is not installed")
    found.keep("countermark https://registry.example", "8f14e45f...", '{"session": "cms_...", ...}')

The keyring is reached by the package `keyring`, an optional extra: macOS Keychain, Windows Credential Locker, the
Secret Service of Linux desktops. One that keeps secrets in the clear, or nothing at all, is taken for none: a file
with mode 0600 does that better. A keyring that fails, or is locked and stays so, is none either; where somebody asked
for the keyring and nothing else, that is an error instead.

Which of the two it was is said in words at every sign-in. Neither protects from a program that runs as the same user.
"""

from __future__ import annotations

from typing import Any, Final

from countermark.errors import UsageError
from countermark.values import dataclass

CHOICES: Final = ("auto", "keyring", "file")
LEAST_PRIORITY: Final = 1.0  # the package's own mark for backends that are recommended
_INSTALL: Final = "add the package keyring to this environment"


@dataclass(frozen=True)
class Absent:
    """There is no keyring to use, and why."""

    why: str


@dataclass(frozen=True)
class Keyring:
    """A keyring of this system, behind the package's backend."""

    name: str
    backend: Any

    def keep(self, service: str, user: str, secret: str) -> Absent | None:
        """Put a secret there and read it back; why not, where that failed."""
        try:
            self.backend.set_password(service, user, secret)
            kept = self.backend.get_password(service, user) == secret
        except Exception as error:  # backends raise errors of many packages
            return Absent(f"the keyring ({self.name}) refuses: {type(error).__name__}")
        return None if kept else Absent(f"the keyring ({self.name}) does not give back what it was given")

    def read(self, service: str, user: str) -> str | None:
        """The secret; None: it has none, or gives it to nobody just now."""
        try:
            found = self.backend.get_password(service, user)
        except Exception:  # backends raise errors of many packages
            return None
        return found if isinstance(found, str) else None

    def forget(self, service: str, user: str) -> None:
        """Take a secret out, if it is there."""
        try:
            self.backend.delete_password(service, user)
        except Exception:  # absent, or locked: what is left there ends with its session
            return


def find_keyring(choice: str) -> Keyring | Absent:
    """The system's keyring, or why there is none. UsageError: it was asked for (`keyring`), and there is none."""
    found = Absent("a file was asked for") if choice == "file" else _found()
    if isinstance(found, Absent) and choice == "keyring":
        raise UsageError(f"no keyring: {found.why}", hint=f"{_INSTALL}, or --tokens file")
    return found


def _found() -> Keyring | Absent:
    try:
        import keyring  # noqa: PLC0415  (an optional extra, and slow)
    except ImportError:
        return Absent("the package keyring is not installed")
    try:
        backend = keyring.get_keyring()
        name, priority = str(backend.name), float(backend.priority)
    except Exception as error:  # backends raise errors of many packages
        return Absent(f"the keyring does not start: {type(error).__name__}")
    if priority < LEAST_PRIORITY:
        return Absent(f"this system has none that keeps secrets ({name})")
    return Keyring(name, backend)
