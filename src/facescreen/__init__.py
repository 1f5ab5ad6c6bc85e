"""Self-hosted face recognition and blacklist screening."""

__version__ = "0.1.0"
