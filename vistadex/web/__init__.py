"""The pages and the HTTP API over one catalog."""

from vistadex.web.app import create_app
from vistadex.web.serving import Serving, serve

__all__ = ["Serving", "create_app", "serve"]
