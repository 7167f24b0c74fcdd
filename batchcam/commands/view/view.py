"""view: a local page over any sample of a run. Reads the run, writes verdicts elsewhere. No torch."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
from urllib.parse import quote

from batchcam.commands.view.book import Book
from batchcam.commands.view.config import ViewConfig
from batchcam.commands.view.desk import Desk
from batchcam.commands.view.movement import Movement
from batchcam.commands.view.table import read_table
from batchcam.errors import BatchcamError
from batchcam.job.console import note
from batchcam.job.scheduler import user_name
from batchcam.pictures.originals import open_originals
from batchcam.record.asked import open_asked
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run

LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class ViewSummary:
    """What was seen.

    Attributes:
        samples: of the run, that could be seen.
        verdicts: added to the file.
        verdicts_file: None where none was asked for.
        lost_files: shards, or run.h5, left out because they are gone or damaged.
        failed: why not all columns could be read, "" if they could.
    """

    run: str
    samples: int
    verdicts: int
    verdicts_file: str | None
    lost_files: int
    failed: str

    @property
    def findings(self) -> int:
        """How many files were lost, or could not be read."""
        return self.lost_files + bool(self.failed)


def view(config: ViewConfig) -> ViewSummary:
    """Serve the page of a run on this machine until a signal ends it.

    Raises:
        RunError: not a run, nothing in it yet, a file of it is damaged, or the older run has no sample of it.
        ConfigError: the data can't be searched for images, or the older run has no class of this one.
        BatchcamError: a package is missing, the file of verdicts is none, or the port is taken.
    """
    try:
        from batchcam.commands.view.server import application, serve
    except ImportError as error:
        raise BatchcamError("view needs starlette and uvicorn: pip install 'batchcam[view]'") from error
    with contextlib.ExitStack() as opened:
        run = opened.enter_context(open_asked(config.run, config.partial, config.quiet))
        originals = open_originals(run, config.data)
        if originals.where is None:
            note("the original images are not at hand: showing maps alone", config.quiet)
        movement = None
        if config.against is not None:
            movement = Movement(opened.enter_context(open_run(config.against)), run, config.against)
        book = Book(config.verdicts, run, config.reviewer or user_name()) if config.verdicts else None
        desk = opened.enter_context(Desk(run, read_table(run, config.quiet), originals, movement, book))
        place = config.at.removeprefix("#") or ("verdict=to judge" if book and book.has_to_judge else "")
        listening, token = opened.enter_context(_listen(config.port)), secrets.token_urlsafe(32)
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/?token={token}#{quote(place, safe='=&%+,./:~-')}"
        note(f"open {address.removesuffix('#')}", quiet=False)
        note("Ctrl-C ends it", config.quiet)
        serve(application(desk, token), listening)
        return ViewSummary(
            run=shown(config.run),
            samples=len(run),
            verdicts=book.written if book else 0,
            verdicts_file=str(config.verdicts) if config.verdicts else None,
            lost_files=len(run.lost),
            failed=desk.failed,
        )


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise BatchcamError(f"--port {port}: {error.strerror}; leave it out for any that is free") from error
