"""`python -m amplify.web EXPERIMENT`: serves an experiment's pages to people."""

import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
import uvicorn
from fastapi import FastAPI

from amplify.errors import AmplifyError
from amplify.people.serving import checked_host, end_with_parent
from amplify.web.app import make_app
from amplify.web.limits import LimitedProtocol


def serve(
    experiment: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")],
    port: int = 8000,
    host: str = "127.0.0.1",
    share: Annotated[
        bool, tyro.conf.arg(help="the pages may be framed by Colab, through its proxy")
    ] = False,
) -> None:
    """Serve an experiment's pages to people, until it is told to stop."""
    if not experiment.is_dir():
        raise AmplifyError(
            f"{experiment}: no such folder; an experiment is a folder with an experiment.toml"
        )
    app = make_app(experiment, share=share)
    with _listen(checked_host(host, "--host"), port) as listening:
        uvicorn.Server(server_config(app)).run(sockets=[listening])


def server_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application, with limits on every connection."""
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AmplifyError(
            f"{host}:{port}: cannot listen there ({reason}); choose another with --port or --host"
        ) from None


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    end_with_parent()
    try:
        tyro.cli(serve, args=argv, description=serve.__doc__)
    except KeyboardInterrupt:
        return
    except (AmplifyError, OSError) as error:
        print(f"amplify: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
