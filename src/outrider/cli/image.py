"""`outrider service save` and `restore`: a service at rest in one file, also for another machine."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run
from outrider.cli.outcome import emit
from outrider.cli.service import Name, describe, progress, settled, upload
from outrider.core import limits
from outrider.core.refusal import Refusal, Refused

_ROOT = "/nlmsf-catalogue/v1"
_POLL_S = 0.2
_RESTORE_LIMIT_S = 1800.0
"""Unpacking ten million contexts, and checking them to the last digest."""


def save(
    service: Name,
    directory: NetworkDir,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.", dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Save a service of this network into one file, while it runs: its package and one snapshot of its contexts.

    The file is signed with this network's key, and not encrypted: whoever reads it reads the identity and the live
    state of every UE, so it is for this operator alone; keep it as you keep the network's folder. What the service
    acknowledges after the snapshot is not in it. Refused while something of the service is at another network.

    Example: outrider service save group-coordination --dir a -o group-coordination.image
    """

    async def do(node: Operator) -> Any:
        image = await node.ask("POST", f"{_ROOT}/deployments/{service}/image")
        path = f"{_ROOT}/images/{image['imageId']}"
        try:
            image = await _saved(node, path, image, quiet=as_json)
            with progress(f"fetching {service}", image["sizeBytes"], quiet=as_json) as advance:
                await _fetch(node, path, image, output, advance)
        finally:
            await node.ask("DELETE", path)
        return image

    image = run(directory, as_json, do)
    value = {"file": str(output), **{k: image[k] for k in ("sha256", "sizeBytes", "signedBy")}, **image["meta"]}
    store = image["meta"]["store"]
    text = (
        f"{service} is saved in {output}: {store['ues']} UEs, {store['records']} records, {image['sizeBytes']} bytes.\n"
        f"  signed with  {image['signedBy']}"
    )
    emit(value, text, as_json)


async def _saved(node: Operator, path: str, image: Any, *, quiet: bool) -> Any:
    """The image once it is written at the node; refused if it cannot be."""
    while image["state"] == "SAVING" and not image["totalBytes"]:
        await asyncio.sleep(_POLL_S)
        image = await node.ask("GET", path)
    done = 0
    with progress(f"saving {image['service']}", image["totalBytes"], quiet=quiet) as advance:
        while image["state"] == "SAVING":
            advance(image["doneBytes"] - done)
            done = image["doneBytes"]
            await asyncio.sleep(_POLL_S)
            image = await node.ask("GET", path)
    if image["state"] == "FAILED":
        said = image["refusal"]
        raise Refused(Refusal(said["code"], said["sentence"], said["facts"], said["remedy"], said["status"]))
    return image


async def _fetch(node: Operator, path: str, image: Any, output: Path, advance: Callable[[int], None]) -> None:
    """Write the image to a file, which has all of it or what it had before."""
    total, part = image["sizeBytes"], output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    digest, first = hashlib.sha256(), 0
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while first < total:
                last = min(first + limits.CATALOGUE_RANGE_BYTES, total) - 1
                body = await node.content(f"{path}/content", headers=[("range", f"bytes={first}-{last}")])
                file.write(body)
                digest.update(body)
                first += len(body)
                advance(len(body))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != image["sha256"]:
            raise Refused(Refusal("DIGEST_MISMATCH", "The image was damaged on its way from the node."))
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def restore(
    image: Annotated[Path, typer.Argument(help="A file of `outrider service save`.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    signer: Annotated[
        str | None, typer.Option(help="Fingerprint of a former key of this network that signed it.", metavar="KEY")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Come back when it runs, not when it is on its way.")] = True,
    as_json: AsJson = False,
) -> None:
    """Bring a saved service to life again at its operator, here or on another machine.

    It must be signed with this network's key, or with the one that --signer names: the key that `outrider service save`
    said, of a machine that is lost. The package is verified as at any deployment and must be for this machine's
    architecture. The contexts go on as they were saved, in a store with a new identity: nobody mistakes it for the one
    that was saved.

    Example: outrider service restore group-coordination.image --dir a
    """

    async def do(node: Operator) -> Any:
        with progress(f"sending {image.name}", image.stat().st_size, quiet=as_json) as advance:
            digest = await upload(node, image, advance)
        wanted = {"sha256": digest} | ({"signer": signer} if signer else {})
        restored = await node.ask("POST", f"{_ROOT}/restorations", wanted, timeout_s=_RESTORE_LIMIT_S)
        return await settled(node, restored) if wait else restored

    restored = run(directory, as_json, do)
    emit(restored, describe(restored), as_json)
