"""Places: a project or a namespace of a log, as people name them to commands and in acts.

acme            the project acme of the default namespace, whose files this registry serves
corp/widget     the project widget of the namespace corp, whose files somebody else serves
corp/*          the namespace corp itself: its keys sign for every project in it
"""

from __future__ import annotations

from typing import Any

from countermark.errors import MalformedError, UsageError
from countermark.names import normalise_project
from countermark.schema import is_namespace
from countermark.values import dataclass

ALL = "*"


@dataclass(frozen=True)
class Place:
    """A namespace ("": the default one), and a project in it ("": the namespace itself)."""

    namespace: str
    project: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """In its one spelling. UsageError: it names neither a project nor a namespace."""
        namespace, slash, project = text.rpartition("/")
        if slash and not (namespace and is_namespace(namespace)):
            raise UsageError(
                f'"{namespace[:80]}" is no namespace: lower-case letters and digits, dashes between them'
            )
        try:
            return cls(namespace, "" if slash and project == ALL else normalise_project(project))
        except MalformedError as error:
            raise UsageError(str(error)) from None

    @classmethod
    def of(cls, predicate: dict[str, Any] | Any) -> Place:
        """What a statement is about."""
        return cls(str(predicate["namespace"]), str(predicate["project"]))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.project or ALL}" if self.namespace else self.project

    @property
    def subject(self) -> str:
        """What a statement about it names."""
        return f"project:{self.project}" if self.project else f"namespace:{self.namespace}"

    @property
    def binding(self) -> dict[str, str]:
        """Its members of a predicate."""
        return {"namespace": self.namespace, "project": self.project}

    @property
    def scope(self) -> str:
        """Of a key that is enrolled for it."""
        return "project" if self.project else "namespace"

    @property
    def file_name(self) -> str:
        """As part of a file's name."""
        return str(self).replace("/", "-").replace(ALL, "all")

    def door(self, what: str) -> str:
        """The API's address of its `projects` or `releases`, below the registry's."""
        if not self.namespace:
            return f"/api/v1/{what}/{self.project}"
        below = f"/api/v1/namespaces/{self.namespace}"
        return f"{below}/{what}/{self.project}" if self.project else below

    def covers(self, other: Place) -> bool:
        """Whether its keys sign for the other: the same place, or a namespace and what is in it."""
        return self == other or (
            self.namespace == other.namespace and bool(self.namespace) and not self.project
        )
