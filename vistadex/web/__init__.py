"""The pages and the HTTP API over one catalog."""

from vistadex.web.app import create_app, serve

__all__ = ["create_app", "serve"]
