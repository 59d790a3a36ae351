"""Lists and checkpoints by the Tinker protocol: sessions, models, archives, addresses of files, times to live."""

import asyncio
import tarfile
import tempfile
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO, cast

from service.openai.openai_answers import to_json
from service.tinker.tinker_endpoint import TinkerLimits, page, read_object
from service.tinker.tinker_fields import Fields
from service.tinker.tinker_messages import TinkerPath, checkpoint_name
from service.tinker.tinker_models import Checkpoint, TinkerModels
from service.tinker.tinker_sessions import Session, iso_time, search
from service.web.download_links import DownloadLinks
from service.web.http_call import HttpCall
from service.web.tinker_error import TinkerError

_FILES = ("adapter_config.json", "adapter_model.safetensors")  # PEFT's
_IN_MEMORY = 16 * 2**20  # bytes of an archive; a longer one goes over the disk


class ListingEndpoints:
    """What is done with requests that ask what there is.

    Args:
        models: sessions, models, checkpoints.
        limits: what is taken.
        links: signs addresses of files.
    """

    def __init__(self, models: TinkerModels, limits: TinkerLimits, links: DownloadLinks) -> None:
        self._models, self._limits, self._links = models, limits, links

    # --------------------------------------------------------------------------------------------------------- sessions

    async def sessions(self, call: HttpCall) -> None:
        """List the sessions, newest first."""
        found = list(reversed(self._models.sessions))
        _, begin, end = page(call, len(found))
        await call.reply(200, to_json({"sessions": found[begin:end]}))

    async def session(self, call: HttpCall) -> None:
        """Tell of one session."""
        found = self._models.require_session(call.parameter("session") or "")
        samplers = [each for each in self._models.samplers if each.startswith(f"{found.id}:")]
        told = {"training_run_ids": found.models, "sampler_ids": samplers, "user_metadata": found.metadata}
        await call.reply(200, to_json(told | {"display_name": found.display_name}))

    async def search_sessions(self, call: HttpCall) -> None:
        """Look for sessions."""

        def stored(session: Session) -> tuple[int, int]:
            found = self._models.checkpoints_of(session.models)
            return len(found), sum(each.bytes for each in found)

        body = await read_object(call, self._limits)
        await call.reply(200, to_json(search(list(self._models.sessions.values()), body, stored)))

    # ----------------------------------------------------------------------------------------------------------- models

    async def runs(self, call: HttpCall) -> None:
        """List the models."""
        found = self._models.runs()
        cursor, begin, end = page(call, len(found))
        told = [self._models.told(each) for each in found[begin:end]]
        await call.reply(200, to_json({"training_runs": told, "cursor": cursor}))

    async def run(self, call: HttpCall) -> None:
        """Tell of one model."""
        await call.reply(200, to_json(self._models.told(self._models.run(call.parameter("run") or ""))))

    # ------------------------------------------------------------------------------------------------------ checkpoints

    async def run_checkpoints(self, call: HttpCall) -> None:
        """List the checkpoints of a model."""
        found = self._models.run(call.parameter("run") or "").checkpoints
        await call.reply(200, to_json({"checkpoints": [each.told() for each in list(found.values())]}))

    async def checkpoints(self, call: HttpCall) -> None:
        """List all checkpoints."""
        found = self._models.checkpoints()
        cursor, begin, end = page(call, len(found))
        await call.reply(200, to_json({"checkpoints": [each.told() for each in found[begin:end]], "cursor": cursor}))

    async def weights_info(self, call: HttpCall) -> None:
        """Tell of a checkpoint."""
        path = TinkerPath.of(Fields(await read_object(call, self._limits)).text("tinker_path"))
        await call.reply(200, to_json(self._models.weights_info(path)))

    async def delete(self, call: HttpCall) -> None:
        """Delete a checkpoint."""
        self._models.delete(self._found(call).path)
        await self._models.settled()
        await call.reply(204, b"")

    async def set_ttl(self, call: HttpCall) -> None:
        """Let a checkpoint go by itself after some time, or never."""
        given = Fields(await read_object(call, self._limits))
        seconds = given.whole("ttl_seconds", least=1, most=10**10) if given.has("ttl_seconds") else None
        self._models.set_ttl(self._found(call).path, seconds)
        await self._models.settled()
        await call.reply(204, b"")

    async def publish(self, call: HttpCall) -> None:
        """Refuse to show a checkpoint to the world."""
        self._found(call)
        raise TinkerError("a local service publishes nothing: download the checkpoint, and publish its files yourself")

    # ------------------------------------------------------------------------------------------------------------ files

    async def archive_address(self, call: HttpCall) -> None:
        """Tell where a checkpoint's archive is."""
        self._found(call)
        address, until = self._links.sign(f"{call.url}/adapter.tar.gz")
        told = [(b"location", address.encode()), (b"expires", formatdate(until, usegmt=True).encode())]
        await call.reply(302, b"", more=told)

    async def archive(self, call: HttpCall) -> None:
        """Give PEFT's files of a checkpoint as one archive."""
        await _send_file(call, self._found(call), _archive, b"application/gzip")

    async def file_addresses(self, call: HttpCall) -> None:
        """Tell where the files of a checkpoint are."""
        folder = self._found(call).folder
        base = call.url.removesuffix("/external_weights_urls")
        signed = {name: self._links.sign(f"{base}/files/{name}") for name in _FILES if (folder / name).is_file()}
        until = min(until for _, until in signed.values())
        told = {"urls": {name: address for name, (address, _) in signed.items()}, "expires": iso_time(until)}
        await call.reply(200, to_json(told))

    async def file(self, call: HttpCall) -> None:
        """Give one of PEFT's files of a checkpoint."""
        name = call.parameter("file") or ""
        if name not in _FILES:
            raise TinkerError(f"a checkpoint has no file {name[:200]!r}; there are {', '.join(_FILES)}", 404)

        def opened(folder: Path) -> BinaryIO:
            return (folder / name).open("rb")

        await _send_file(call, self._found(call), opened, b"application/octet-stream")

    def _found(self, call: HttpCall) -> Checkpoint:
        name = checkpoint_name(call.parameter("name") or "")
        return self._models.checkpoint(TinkerPath(call.parameter("run") or "", call.parameter("kind") or "", name))


async def _send_file(call: HttpCall, checkpoint: Checkpoint, opened: Callable[[Path], BinaryIO], kind: bytes) -> None:
    try:
        file = await asyncio.to_thread(opened, checkpoint.folder)
    except OSError as error:
        raise TinkerError(f"the files of {checkpoint.path} can't be read: {error.strerror or error}", 404) from error
    with file:
        await call.reply_file(file, kind)


def _archive(folder: Path) -> BinaryIO:
    """Return PEFT's files of a folder as a tar.gz."""
    packed = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115, who asked closes it
    try:
        # Weights hardly get smaller: packing them well would only take long.
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            for name in _FILES:
                archive.add(folder / name, name)
    except BaseException:
        packed.close()
        raise
    return packed
