"""What a package registry serves, verified: formats, law and the client. README.md says where to begin."""

__version__ = "0.1.0"
