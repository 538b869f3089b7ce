"""The list of what an image is made of, as a software bill of materials (SPDX 2.3, JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from packages import Package


def sbom(name: str, version: str, architecture: str, packages: Sequence[Package], epoch: int) -> str:
    """The text for image ``name``: our own package, and Debian's with their versions, checksums and package URLs."""
    ours = {
        "SPDXID": "SPDXRef-refclock",
        "name": "refclock",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": "BSD-2-Clause",
    }
    theirs = [
        {
            "SPDXID": f"SPDXRef-{p.name.replace('+', '-plus')}",
            "name": p.name,
            "versionInfo": p.version,
            "packageFileName": p.file,
            "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "checksums": [{"algorithm": "SHA256", "checksumValue": p.sha256}],
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": f"pkg:deb/debian/{p.name}@{p.version}?arch={architecture}&distro=trixie",
                }
            ],
        }
        for p in packages
    ]
    contents = sha256("".join(p.sha256 for p in packages).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:refclock:{name}:{contents}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: refclock make image"],
        },
        "packages": [ours, *theirs],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": str(part["SPDXID"])}
            for part in (ours, *theirs)
        ],
    }
    return json.dumps(document, indent=1) + "\n"
