"""Ambient credentials: none are looked at here."""


class DefaultAzureCredential:
    pass
