"""The names of algorithms, whatever they are called."""

from __future__ import annotations


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class CryptoKeyVersion:
    class CryptoKeyVersionAlgorithm(metaclass=_Names):
        pass
