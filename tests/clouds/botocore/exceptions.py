"""The two kinds of errors that AWSSigner knows."""

from cloudkeys import DownError


class BotoCoreError(DownError):
    """No answer."""


class ClientError(Exception):
    """A refusal."""
