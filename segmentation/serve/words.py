"""What may be said of an upload: never its file names, nor texts that stand in it."""

import re

_LONGEST = 300
_BATCH = re.compile(r"^0 of 1 scans are segmented; not segmented: [\w.]+: ")
_LISTING = re.compile(r":? \[0\] .*", re.DOTALL)
"""Series that a message lists: descriptions and ids."""
_REASON = re.compile(r"(cannot be \w+(?: as [\w ]+)?) \(.*?\)(?=[;,.]|$)", re.DOTALL)
"""Words of a library, which may repeat what it could not read."""
_REPAIR = re.compile(r", or (?:repair it with|drop equal copies with repair) '\w+'")
"""What the command line offers and the server does not."""
_TAG = re.compile(r"<[^>]*>")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_UID = re.compile(r"\b\d+(?:\.\d+){3,}\b")
_PATH = re.compile(r"(?:[^\s:;,]*/)[^\s:;,]*")
_FILE = re.compile(r"\b(?:scan|\d{6})\.(?:nii\.gz|nii|nrrd|png|tif|jpg|zip|dcm)|^(?:series|raw|scan)\b")
"""Names that the server gave to what it received."""


def cleaned(text: str) -> str:
    """Say the same without anything that comes out of an upload: one line of plain letters.

    Args:
        text: A message of a reader about a file that the server named itself.

    Examples:
        >>> cleaned("scan.nii.gz cannot be read as NIfTI (bad value 'Doe^Jane'); is it complete? restore it")
        'the upload cannot be read as NIfTI; is it complete? restore it'
        >>> cleaned("/state/uploads/7/000001.dcm: space 'Doe' is not known <b>")
        'the upload: space ... is not known'
        >>> cleaned("0 of 1 scans are segmented; not segmented: scan: scan.nii.gz holds NaN")
        'the upload holds NaN'
    """
    text = _BATCH.sub("", " ".join(text.split()))
    text = _LISTING.sub("", text)
    text = _REPAIR.sub("", text)
    text = _TAG.sub("", text)
    text = _REASON.sub(r"\1", text)
    text = _QUOTED.sub("...", text)
    text = _UID.sub("...", text)
    text = _PATH.sub("the upload", text)
    text = _FILE.sub("the upload", text)
    text = re.sub(r"[^ -;=?-~]", "", text).strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
