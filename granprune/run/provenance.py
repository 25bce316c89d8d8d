"""What a run's images are, in the words of their data file."""

from collections.abc import Mapping


def caveat(provenance: Mapping[str, str]) -> str | None:
    """What readers of results and figures must know about the images; None if they are the originals.

    Args:
        provenance: A data file's metadata: `lossless` is `"true"` or `"false"`, `note` and `source` are
            texts.

    >>> caveat({"lossless": "false", "note": "lossy JPEG pixels"})
    'lossy JPEG pixels'
    >>> caveat({"lossless": "true", "note": "official files"})
    """
    if provenance.get("lossless") != "false":
        return None
    return provenance.get("note") or provenance.get("source") or "not the original pixels"
