"""The catalogue: package archives of this operator, and those fetched from partners, each verified before it counts.

Archives move in ranges, up from the CLI and across from a partner; what has come is on the disk, so both go on where
they stopped. An upload is named by the archive's SHA-256, a package by its package digest. An archive is verified
again at each network that takes it: signature, digests, SBOM.
"""

import asyncio
import hashlib
import os
import re
import shutil
from pathlib import Path

import msgspec

from outrider.core import limits
from outrider.core.audit import LMSF, Entry
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import Component, Finding, SoftwareFacts
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock, Partners, Software, Supply, Verified
from outrider.functions.lmsf.record import Package
from outrider.functions.lmsf.unbroken import Unbroken
from outrider.package.sbom import ROOT, root_purl
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import refusal_from

SCOPE = "nlmsf-catalogue"
_DIGEST = re.compile(r"\A[0-9a-f]{64}\Z")
_RANGE = re.compile(r"\A(?:bytes[ =])?(\d+)-(\d+)(?:/(\d+))?\Z")


def byte_range(header: str | None, *, total: bool = False) -> tuple[int, int, int]:
    """`(first, last, total)` of a Range or Content-Range header; refuses what is not one closed range."""
    match = _RANGE.match(header or "")
    if match is None or (total and match[3] is None) or int(match[2]) < int(match[1]):
        raise Refused(
            Refusal(
                "INVALID_RANGE",
                f"{header!r} is not one closed range of bytes.",
                remedy="Write `Content-Range: bytes FIRST-LAST/TOTAL`, or `Range: bytes=FIRST-LAST`.",
                status=400,
            )
        )
    return int(match[1]), int(match[2]), int(match[3] or 0)


def check_digest(digest: str) -> str:
    """The digest itself; refused unless it is 64 lower-case hexadecimal digits, so that it is safe in a path."""
    if _DIGEST.match(digest) is None:
        raise Refused(Refusal("INVALID_DIGEST", f"{digest[:80]!r} is no SHA-256 in hexadecimal.", status=400))
    return digest


class Catalogue:
    """Archives under one folder: `DIGEST.lms`, and parts of those that are coming."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        software: Software,
        partners: Partners,
        clock: Clock,
        supply: Supply | None = None,
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = journal
        self._software = software
        self._partners = partners
        self._clock = clock
        self._unbroken = Unbroken()
        self._supply = supply
        self._packages: dict[str, Package] = {}
        self._facts: dict[str, SoftwareFacts] = {}
        for body in journal.all("package"):
            package = msgspec.json.decode(body, type=Package)
            self._packages[package.digest] = package
        for body in journal.all("software"):
            facts = msgspec.json.decode(body, type=SoftwareFacts)
            self._facts[facts.package_digest] = facts

    def tidy(self, fetching: set[str]) -> None:
        """Delete what a crash has left: archives that were not taken in, and fetched parts that nobody goes on with."""
        kept = {self.archive(digest) for digest in self._packages} | {self._fetching(digest) for digest in fetching}
        for path in [*self._folder.glob("*.lms"), *self._folder.glob("fetch-*.part")]:
            if path not in kept:
                path.unlink()

    async def stop(self) -> None:
        """Stop working."""
        await self._unbroken.stop()

    def all(self) -> list[Package]:
        """Every package, by service and version."""
        return sorted(self._packages.values(), key=lambda p: (p.manifest.service, p.manifest.version, p.digest))

    def get(self, digest: str) -> Package | None:
        """One package."""
        return self._packages.get(digest)

    async def components(self, digest: str) -> tuple[Component, ...] | None:
        """What is in a package, the service's own code first, then the libraries; None if the package is not here.

        Raises:
            Refused: it is not known yet, and the archive is not what was verified once.
        """
        if digest not in self._packages:
            return None
        return tuple(c for c in (await self.facts(digest)).components if c.ref != ROOT)

    def archive(self, digest: str) -> Path:
        """Where the archive of a package lies."""
        return self._folder / f"{check_digest(digest)}.lms"

    def _upload(self, sha256: str) -> Path:
        return self._folder / f"upload-{check_digest(sha256)}.part"

    def _fetching(self, digest: str) -> Path:
        return self._folder / f"fetch-{check_digest(digest)}.part"

    def uploaded(self, sha256: str) -> int:
        """How many bytes of an upload have come."""
        return _size(self._upload(sha256))

    async def read(self, digest: str, first: int, last: int) -> bytes:
        """A range of an archive, cut at the bound of one answer."""
        package = self.get(digest)
        if package is None:
            raise Refused(_unknown(digest))
        if first >= package.size_bytes:
            raise Refused(
                Refusal("RANGE_NOT_SATISFIABLE", f"The archive has {package.size_bytes} bytes only.", status=416)
            )
        size = min(last + 1 - first, limits.CATALOGUE_RANGE_BYTES)

        def read() -> bytes:
            with open(self.archive(digest), "rb") as file:
                file.seek(first)
                return file.read(size)

        return await asyncio.to_thread(read)

    def upload_file(self, sha256: str) -> Path:
        """Where an upload lies, or is to be laid by who has it already."""
        return self._upload(sha256)

    def uploaded_file(self, sha256: str) -> Path:
        """An upload that has come; refused if nothing has."""
        part = self._upload(sha256)
        if not _size(part):
            raise Refused(_unknown(sha256))
        return part

    async def upload(self, sha256: str, first: int, total: int, body: bytes) -> int:
        """Add a range to an upload; returns how much has come. A range that is there already is fine."""
        return await self._write(self._upload(sha256), first, total, body)

    async def _write(self, part: Path, first: int, total: int, body: bytes) -> int:
        if total > limits.IMAGE_BYTES or first + len(body) > total:
            raise Refused(_too_large(total))
        have = _size(part)
        if first > have:
            raise Refused(
                Refusal(
                    "RANGE_GAP",
                    f"{have} bytes have come, so the next range begins there, not at {first}.",
                    {"receivedBytes": str(have)},
                    status=409,
                )
            )
        if first + len(body) <= have:
            return have
        check_room(self._folder, total - have)

        def write() -> int:
            with open(part, "ab") as file:
                file.write(body[have - first :])
            return _size(part)

        return await asyncio.to_thread(write)

    async def onboard(self, sha256: str) -> Package:
        """Take an upload in that has come whole."""
        part = self.uploaded_file(sha256)
        if _size(part) > limits.PACKAGE_BYTES:
            raise Refused(_too_large(_size(part)))
        found = await asyncio.to_thread(_sha256, part)
        if found != sha256:
            part.unlink()
            raise Refused(_damaged(found, sha256))
        return await self._unbroken.run(sha256, lambda: self._take(part, ""))

    async def _take(self, part: Path, origin: str, expected: str | None = None) -> Package:
        """Verify an archive that has come and keep it."""
        verified = await asyncio.to_thread(self._checked, part, origin, expected)
        if isinstance(verified, Refusal):
            raise Refused(verified)
        known, facts = self.get(verified.digest), facts_of(verified)
        if known is not None and (origin or not known.origin):
            if self._facts.get(known.digest) != facts:  # the same package, signed by another key
                known = msgspec.structs.replace(known, vendor_key_id=verified.vendor_key_id)
                await self._keep(known, facts, _taken(known))
            return known
        package = Package(
            digest=verified.digest,
            sbom_digest=verified.sbom_digest,
            manifest=verified.manifest,
            size_bytes=verified.size_bytes,
            vendor_key_id=verified.vendor_key_id,
            origin=origin,
            onboarded_ms=self._clock.now_ms(),
        )
        await self._keep(package, facts, _taken(package))
        return package

    async def _keep(self, package: Package, facts: SoftwareFacts, audit: Entry) -> None:
        await self._journal.put("software", package.digest, msgspec.json.encode(facts))
        await self._journal.put("package", package.digest, msgspec.json.encode(package), audit=[audit])
        self._facts[package.digest] = facts
        self._packages[package.digest] = package

    def _checked(self, part: Path, origin: str, expected: str | None) -> Verified | Refusal:
        """Verify, and put the archive in its place; a refused one is deleted, since it is not what it should be.

        What this operator's own upload is like is judged here; a partner's package is judged with its migration.
        """
        verified = self._software.verify(part)
        if not isinstance(verified, Refusal) and expected not in (None, verified.digest):
            verified = _damaged(verified.digest, expected or "")
        if isinstance(verified, Refusal):
            part.unlink()
            return verified
        reasons = self._supply.judge(facts_of(verified)) if self._supply is not None and not origin else []
        if reasons:
            part.unlink()
            raise Refused(*reasons)
        os.replace(part, self.archive(verified.digest))
        return verified

    async def facts(self, digest: str) -> SoftwareFacts:
        """What supply chain decisions need of a package; one from before these were kept is verified again for it."""
        known = self._facts.get(digest)
        if known is None:
            if self.get(digest) is None:
                raise Refused(_unknown(digest))
            verified = await asyncio.to_thread(self._software.verify, self.archive(digest))
            if isinstance(verified, Refusal):
                raise Refused(verified)
            known = self._facts[digest] = facts_of(verified)
            await self._journal.put("software", digest, msgspec.json.encode(known))
        return known

    async def against(self, digest: str, handed_to: str | None = None) -> list[Refusal]:
        """Every reason of this operator against a package now, or against handing it to a network."""
        if self._supply is None:
            return []
        return await asyncio.to_thread(self._supply.judge, await self.facts(digest), handed_to=handed_to)

    async def findings(self, digest: str) -> list[Finding]:
        """Known vulnerabilities in a package."""
        if self._supply is None:
            return []
        return await asyncio.to_thread(self._supply.findings, await self.facts(digest))

    def revoked(self, digest: str) -> list[Refusal]:
        """Every revocation of a package that may be running."""
        facts = self._facts.get(digest)
        return [] if self._supply is None or facts is None else self._supply.revoked(facts)

    async def hosting(self, manifest: Manifest, package_digest: str, sbom_digest: str) -> list[Refusal]:
        """Every reason against software that a partner offers, by all that is known of it: more once it has come."""
        withdrawn = [r for r in (self._withdrawn(package_digest),) if r is not None]
        if self._supply is None:
            return withdrawn
        known = self.get(package_digest) is not None
        facts = await self.facts(package_digest) if known else _before(manifest, package_digest, sbom_digest)
        return withdrawn + await asyncio.to_thread(self._supply.judge, facts)

    def usable(self, digest: str) -> Refusal | None:
        """Why nothing new may begin with a package: this operator withdrew it, or it was revoked."""
        return self._withdrawn(digest) or next(iter(self.revoked(digest)), None)

    def _withdrawn(self, digest: str) -> Refusal | None:
        package = self.get(digest)
        if package is not None and package.withdrawn_ms:
            because = f": {package.withdrawn_why}" if package.withdrawn_why else ""
            return Refusal(
                "PACKAGE_WITHDRAWN",
                f"{package.manifest.service} {package.manifest.version} was withdrawn from the catalogue{because}.",
                {"packageDigest": digest, "withdrawnMs": str(package.withdrawn_ms)},
                "Use another version; or delete the package and onboard it anew.",
                status=409,
            )
        return None

    async def withdraw(self, digest: str, why: str) -> Package:
        """Begin nothing new with a package; what runs from it goes on. Again is the same, with the first reason."""
        package = self.get(digest)
        if package is None:
            raise Refused(_unknown(digest))
        if not package.withdrawn_ms:
            package = msgspec.structs.replace(package, withdrawn_ms=self._clock.now_ms(), withdrawn_why=why)
            await self._journal.put("package", digest, msgspec.json.encode(package))
            self._packages[digest] = package
        return package

    async def fetch(self, digest: str, size: int, partner: str) -> Package:
        """Get an archive from a partner's catalogue, from where an earlier try stopped, and verify it.

        Whether this operator hosts it is the caller's question (`judging`).
        """
        if size > limits.PACKAGE_BYTES:
            raise Refused(_too_large(size))
        known = self.get(digest)
        if known is not None:
            return known
        part = self._fetching(digest)
        while (have := _size(part)) < size:
            last = min(have + limits.CATALOGUE_RANGE_BYTES, size) - 1
            response = await self._partners.request(
                partner,
                "GET",
                f"/nlmsf-catalogue/v1/packages/{digest}/archive",
                scope=SCOPE,
                headers=[("range", f"bytes={have}-{last}")],
                bulk=True,
                timeout_s=limits.PARTNER_LIMIT_MS / 1000,
            )
            if response.status in (429, 502, 503, 504):
                raise Unreachable(f"{partner} gave no package bytes: {response.status}", not_sent=True)
            if response.status != 206 or not response.body:
                raise Refused(refusal_from(response, f"{partner} does not hand out the package."))
            await self._write(part, have, size, response.body[: last + 1 - have])
        return await self._unbroken.run(digest, lambda: self._take(part, partner, digest))

    async def install(self, digest: str, folder: Path) -> Path:
        """Unpack a package for a host, below a folder; the package's folder."""
        if self.get(digest) is None:
            raise Refused(_unknown(digest))
        installed = await asyncio.to_thread(self._software.install, self.archive(digest), folder)
        if isinstance(installed, Refusal):
            raise Refused(installed)
        return installed

    async def drop(self, digest: str) -> None:
        """Delete a package, and what has come of one; nothing to do if there is none."""
        await self._unbroken.run(digest, lambda: self._drop(digest))

    async def drop_fetched(self, digest: str) -> None:
        """As `drop`, but a package that this network's operator has onboarded stays."""
        known = self.get(digest)
        if known is None or known.origin:
            await self.drop(digest)

    async def _drop(self, digest: str) -> None:
        if self._packages.pop(digest, None) is not None:
            await self._journal.drop("package", digest)
            self._facts.pop(digest, None)
            await self._journal.drop("software", digest)
        for path in (self.archive(digest), self._fetching(digest)):
            path.unlink(missing_ok=True)


def facts_of(verified: Verified) -> SoftwareFacts:
    """What supply chain decisions need of a verified package."""
    return SoftwareFacts(
        service=verified.manifest.service,
        version=verified.manifest.version,
        package_digest=verified.digest,
        sbom_digest=verified.sbom_digest,
        vendor=verified.manifest.vendor,
        signer=(verified.vendor_key_id, *verified.certificates),
        export_class=verified.manifest.export_class,
        components=verified.components,
    )


def _taken(package: Package) -> Entry:
    return Entry(
        LMSF,
        "decision",
        f"Package {package.manifest.service} {package.manifest.version} is verified and taken.",
        "package, digests and vendor's signature",
        subject={"package": package.digest, "sbom": package.sbom_digest},
        facts={"origin": package.origin or "own operator", "vendorKeyId": package.vendor_key_id},
    )


def _before(manifest: Manifest, package_digest: str, sbom_digest: str) -> SoftwareFacts:
    """What is known of a package before it has come: nothing of its libraries."""
    itself = Component(
        ref=ROOT,
        name=manifest.service,
        version=manifest.version,
        purl=root_purl(manifest),
        licence=None if manifest.licence == "NOASSERTION" else manifest.licence,
        supplier=manifest.vendor,
    )
    return SoftwareFacts(
        service=manifest.service,
        version=manifest.version,
        package_digest=package_digest,
        sbom_digest=sbom_digest,
        vendor=manifest.vendor,
        export_class=manifest.export_class,
        components=(itself,),
    )


def check_room(where: Path, more: int) -> None:
    """Refused if so many bytes more would fill the disk."""
    free = shutil.disk_usage(where).free
    if free - more < limits.DISK_RESERVE_BYTES:
        raise Refused(no_room(more, free))


def no_room(needed: int, free: int) -> Refusal:
    """The refusal of a disk that is too full."""
    return Refusal(
        "NO_ROOM",
        f"{needed} bytes are needed, and only {free} are free; some must stay free for what runs already.",
        {"neededBytes": str(needed), "freeBytes": str(free), "reserveBytes": str(limits.DISK_RESERVE_BYTES)},
        "Free disk space at this network.",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _damaged(found: str, expected: str) -> Refusal:
    return Refusal(
        "DIGEST_MISMATCH",
        f"The archive has the digest {found[:16]}…, not {expected[:16]}…: it was changed or damaged on the way.",
        {"found": found, "expected": expected},
        "Send it again.",
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unknown(digest: str) -> Refusal:
    return Refusal(
        "PACKAGE_UNKNOWN",
        f"The catalogue has no package {digest[:16]}….",
        {"packageDigest": digest},
        "`outrider service deploy PACKAGE` onboards it.",
        status=404,
    )


def _too_large(size: int) -> Refusal:
    return Refusal(
        "PACKAGE_TOO_LARGE",
        f"The archive has {size} bytes or more; {limits.PACKAGE_BYTES} are the most.",
        {"limitBytes": str(limits.PACKAGE_BYTES)},
        status=413,
    )


async def archive_range(catalogue: Catalogue, request: Request) -> Response:
    """A range of a package's archive; at most `CATALOGUE_RANGE_BYTES` of it."""
    digest = check_digest(request.params["packageDigest"])
    package = catalogue.get(digest)
    if package is None:
        raise Refused(Refusal("PACKAGE_UNKNOWN", f"The catalogue has no package {digest[:16]}….", status=404))
    first, last, _ = byte_range(request.headers.get("range"))
    body = await catalogue.read(digest, first, last)
    span = f"bytes {first}-{first + len(body) - 1}/{package.size_bytes}"
    return Response(206, [("content-type", "application/octet-stream"), ("content-range", span)], body)
