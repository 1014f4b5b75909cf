"""What a page needs to show volumes: our viewer, and NiiVue, which draws, from the ipyniivue wheel.

The wheel's bundle is a front end for notebooks; niivue.js hosts it in a plain page, so pip alone brings the viewer.
"""

import gzip
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

_SCRIPTS = ("niivue.js", "viewer.js")

_SECOND_COPY = re.compile(r'="[^"\n]{1000000,}"')
"""NiiVue once more, as a text for pages that NiiVue itself would save: half of the bundle, and never used here."""


@dataclass(frozen=True)
class ViewerAssets:
    """The parts of the viewer, to be embedded into a page or served beside it.

    Attributes:
        script: Defines ``SkipSegViewer``; viewer.js says how to call it.
        style: Style sheet.
        niivue: NiiVue as a JavaScript module, gzipped. A page without a server holds it in base64 in an element with
            the id ``skipseg-niivue``; another one gives its address to ``SkipSegViewer.mount`` as ``library``.
        licence: Licence of NiiVue, which goes wherever ``niivue`` goes.
        version: Of the wheel.
    """

    script: str
    style: str
    niivue: bytes
    licence: str
    version: str


@cache
def viewer_assets() -> ViewerAssets | None:
    """Collect the parts of the viewer; ``None`` without the ipyniivue wheel (``pip install 'skipseg[ui]'``)."""
    wheel = importlib.util.find_spec("ipyniivue")  # found, not imported: it would load all of Jupyter's widgets
    bundle = Path(wheel.origin).parent / "static" / "widget.js" if wheel and wheel.origin else None
    if bundle is None or not bundle.is_file():
        return None
    here = Path(__file__).parent
    packed = metadata.distribution("ipyniivue")
    licences = [str(file.locate()) for file in packed.files or () if file.name.startswith("LICENSE")]
    return ViewerAssets(
        script="\n".join((here / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        style=(here / "viewer.css").read_text(encoding="utf-8"),
        niivue=gzip.compress(_SECOND_COPY.sub('=""', bundle.read_text(encoding="utf-8")).encode(), 9, mtime=0),
        licence="\n\n".join(Path(file).read_text(encoding="utf-8").strip() for file in sorted(licences)),
        version=packed.version,
    )
