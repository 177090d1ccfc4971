"""The error that AzureSigner passes on."""

from cloudkeys import DownError


class HttpResponseError(DownError):
    pass
