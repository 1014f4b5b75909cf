"""What a class is called in SNOMED CT, as DICOM wants it, and the colour that it is shown in.

Codes are looked up in the dictionary of the standard that pydicom carries: none is written down here, so none can be
wrong by a digit. A name whose meaning is not certain gets a generic code and keeps its own words as the label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segmentation import SkipSegError

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

NO_CODES: Mapping[str, Mapping[str, str]] = {}

CATEGORIES = {
    "organ": "AnatomicalStructure",
    "tissue": "Tissue",
    "altered": "MorphologicallyAbnormalStructure",
    "substance": "BodySubstance",
}
"""Category of a class to its keyword in DICOM's context group 7150, Segmentation Property Category."""

PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 20),
    (204, 121, 167),
    (240, 228, 66),
    (68, 119, 170),
)
"""Sky blue, orange, green, vermillion, purple and yellow of Okabe and Ito (jfly.uni-koeln.de/color, 2002), blue of Tol.

Vermillion has a little blue, and the blue is Tol's: so all stay colours in readers that take CIELab to be under D65.
"""

_ORGANS = """
    adrenal gland: AdrenalGland; amygdala: Amygdala; aorta: Aorta; artery, arteries: Artery; bladder,
    urinary bladder: Bladder; bone, bones: Bone; brain: Brain; brain stem, brainstem: BrainStem; breast: Breast;
    bronchus, bronchi: Bronchus; caudate nucleus: CaudateNucleus; cell nucleus, nucleus, nuclei: Nucleus; cell, cells:
    Cell; cerebellum: Cerebellum; clavicle: Clavicle; colon: Colon; cornea: Cornea; coronary artery: CoronaryArtery;
    duodenum: Duodenum; esophagus: Esophagus; eye: Eye; femur: Femur; femoral head: FemoralHead; gallbladder,
    gall bladder: Gallbladder; heart: Heart; hippocampus, hippocampi: Hippocampus; humerus: Humerus; inferior vena cava:
    InferiorVenaCava; kidney, kidneys: Kidney; larynx: Larynx; lateral ventricle: LateralVentricle; left atrium:
    LeftAtrium; left ventricle: LeftVentricle; liver: Liver; lung, lungs: Lung; lymph node, lymph nodes: LymphNode;
    mandible: Mandible; nerve: Nerve; optic chiasm: OpticChiasm; optic nerve: OpticNerve; ovary: Ovary; pancreas:
    Pancreas; parotid gland: ParotidGland; patella: Patella; pituitary: Pituitary; portal vein: PortalVein; prostate:
    Prostate; pulmonary artery: PulmonaryArtery; putamen: Putamen; rectum: Rectum; retina: Retina; rib, ribs: Rib; right
    atrium: RightAtrium; right ventricle: RightVentricle; sacrum: Sacrum; scapula: Scapula; skull: Skull;
    small intestine, small bowel: SmallIntestine; spinal cord: SpinalCord; spine: Spine; spleen: Spleen; sternum:
    Sternum; stomach: Stomach; thalamus: Thalamus; thyroid, thyroid gland: Thyroid; tibia: Tibia; tooth, teeth: Tooth;
    trachea: Trachea; uterus: Uterus; vein, veins: Vein; vertebra, vertebrae: Vertebra;
    vessel, vessels, blood vessel, blood vessels: BloodVessel
"""
_TISSUES = """
    cartilage: Cartilage; fat, adipose tissue: AdiposeTissue; gray matter: GrayMatter; muscle: Muscle; skeletal muscle:
    SkeletalMuscle; skin: Skin; white matter: WhiteMatter
"""
_ALTERED = """
    abscess: Abscess; aneurysm: Aneurysm; cyst, cysts: Cyst; edema: Edema; hematoma: Hematoma; hemorrhage, bleeding:
    Hemorrhage; lesion, lesions: Lesion; mass: Mass; metastasis, metastases: NeoplasmSecondary; necrosis: Necrosis;
    nodule, nodules: Nodule; primary tumor: NeoplasmPrimary; thrombus: Thrombus; tumor, tumors, neoplasm: Neoplasm
"""
_SUBSTANCES = "cerebrospinal fluid, csf: CerebrospinalFluid"

_SPELLINGS = {
    "tumour": "tumor", "tumours": "tumors", "oedema": "edema", "oesophagus": "esophagus", "grey": "gray",
    "haematoma": "hematoma", "haemorrhage": "hemorrhage",
}  # fmt: skip
_SIDES = {"left": "Left", "right": "Right", "anterior": "Anterior", "posterior": "Posterior"}
_UNCERTAIN = frozenset({"and", "or", "non", "no", "not", "without", "other", "outside", "peri", "pseudo", "rest"})
"""Words with which the noun of a name no longer says what the class is."""

_ONLY_ALONE = frozenset({"bladder", "cell", "cells", "eye", "mass", "nuclei", "nucleus", "spine"})
"""Words that as the last of several may mean something else: a caudate nucleus, muscle mass, a dendritic spine."""

_BRIEF = {"value": 16, "scheme": 16, "meaning": 64}
"""Most characters of a code's parts in DICOM (SH and LO)."""


@dataclass(frozen=True)
class Term:
    """What a class is, in codes.

    Attributes:
        category: One of DICOM's Segmentation Property Categories, such as Anatomical Structure.
        kind: What it is, such as Liver; the generic code of its category where nothing better is certain.
        side: Left, Right, Anterior or Posterior, where the name says so.
    """

    category: "Code"
    kind: "Code"
    side: "Code | None" = None


def term(name: str, codes: Mapping[str, Mapping[str, str]] = NO_CODES) -> Term:
    """Find the codes of a class by its name.

    The name, without its side, is looked up as a whole and then by its last word, which in English is the noun that
    the others describe: a lung nodule is a nodule. Everything else is tissue, or an altered structure when a word
    of the name is one (tumour core).

    Args:
        name: Class name of a dataset, English, in any case, words parted by anything.
        codes: Codes that the dataset gives itself: class name to ``value``, ``scheme`` (such as SCT), ``meaning``
            and ``category``, one of :data:`CATEGORIES` (``organ`` if it is absent).

    Raises:
        SkipSegError: If a given code lacks a part, or a part is longer than DICOM allows.

    Examples:
        >>> term("Left kidney").kind.meaning, term("Left kidney").side.meaning
        ('Kidney', 'Left')
        >>> term("lung_nodule").kind.value, term("membrane").kind.meaning
        ('27925004', 'Tissue')
    """
    if name in codes:
        return _given(name, codes[name])
    words: list[str] = re.findall(r"[^\W_]+", name.lower())
    words = [_SPELLINGS.get(word, word) for word in words]
    sides = [word for word in words if word in _SIDES]
    side = _code(_SIDES[sides[0]]) if len(sides) == 1 else None
    if (found := _TABLE.get(" ".join(words))) is not None:  # with its side: the left ventricle is a structure itself
        return Term(_code(CATEGORIES[found[0]]), _code(found[1]))
    found = None if _UNCERTAIN & set(words) else _looked_up([word for word in words if word not in _SIDES])
    if found is None:
        is_altered = any(_TABLE.get(word, ("",))[0] == "altered" for word in words if word not in _ONLY_ALONE)
        found = ("altered", CATEGORIES["altered"]) if is_altered else ("tissue", CATEGORIES["tissue"])
    return Term(_code(CATEGORIES[found[0]]), _code(found[1]), side)


def colour(name: str, value: int) -> tuple[int, int, int]:
    """Colour of a class: always the same for a label value, and apart from the others for the colour-blind.

    The first seven are :data:`PALETTE`; the next seven are lighter, and the next darker; from 22 on they repeat.

    Args:
        name: Class name, for the message.
        value: Label value, from 1.

    Returns:
        Red, green and blue of sRGB, each in ``[0, 255]``.

    Raises:
        SkipSegError: If the value is 0 or less: the background has no colour.

    Examples:
        >>> colour("liver", 1), colour("tumour", 2), colour("spleen", 8)
        ((86, 180, 233), (230, 159, 0), (170, 218, 244))
    """
    if value < 1:
        raise SkipSegError(
            f"class {name!r} has the value {value}; colours are for values from 1, the background has none"
        )
    shift, index = divmod(value - 1, len(PALETTE))
    towards, part = ((0, 0.0), (255, 0.5), (0, 0.4))[shift % 3]
    red, green, blue = (round(level + part * (towards - level)) for level in PALETTE[index])
    return red, green, blue


def cielab(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Convert a colour to what DICOM stores as a Recommended Display CIELab Value.

    DICOM takes the CIELab of the ICC's profile connection space, whose white is D50 (PS3.3 C.10.7.1.1): sRGB is
    made linear (IEC 61966-2-1), brought to CIE XYZ under D50 by the Bradford-adapted matrix of the sRGB profile
    (brucelindbloom.com, RGB/XYZ Matrices), and from there by the CIE 1976 formula to ``L* = 116 f(Y) - 16``,
    ``a* = 500 (f(X) - f(Y))``, ``b* = 200 (f(Y) - f(Z))``, relative to white, with f the cube root above
    ``(6/29)^3`` and its tangent ``t (29/6)^2 / 3 + 4/29`` below.

    Args:
        rgb: Red, green and blue of sRGB, each in ``[0, 255]``.

    Returns:
        L* of ``[0, 100]``, a* and b* of ``[-128, 127]``, each scaled to ``[0, 65535]``.

    Examples:
        >>> cielab((255, 255, 255)), cielab((0, 0, 0))
        ((65535, 32896, 32896), (0, 32896, 32896))
    """
    encoded = np.array(rgb) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    relative = _SRGB_TO_XYZ_D50 @ linear / _SRGB_TO_XYZ_D50.sum(axis=1)
    x, y, z = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = np.array([lightness / 100, (a + 128) / 255, (b + 128) / 255]) * 0xFFFF
    first, second, third = (int(part) for part in np.rint(scaled).clip(0, 0xFFFF))
    return first, second, third


_SRGB_TO_XYZ_D50 = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)


def _code(keyword: str) -> "Code":
    """A SNOMED CT code of the standard's dictionary."""
    from pydicom.sr.codedict import codes  # its dictionary is large, and only whoever writes DICOM needs it

    return getattr(codes.SCT, keyword)


def _looked_up(words: list[str]) -> tuple[str, str] | None:
    """Category and keyword of a name, by all its words or by the noun that they describe."""
    if (found := _TABLE.get(" ".join(words))) is not None:
        return found
    ends = [words.index(word) for word in ("of", "in") if word in words]
    nouns = words[: min(ends)] if ends else words
    return _TABLE.get(nouns[-1]) if nouns and nouns[-1] not in _ONLY_ALONE else None


def _given(name: str, given: Mapping[str, str]) -> Term:
    """The codes that a dataset gives for a class."""
    for part, longest in _BRIEF.items():
        if not 0 < len(given.get(part, "")) <= longest:
            raise SkipSegError(
                f'the code of {name!r} needs a "{part}" of 1 to {longest} characters, got {given.get(part)!r}'
            )
    if (category := given.get("category", "organ")) not in CATEGORIES:
        raise SkipSegError(f"the category of {name!r} is one of {', '.join(CATEGORIES)}, got {category!r}")
    from pydicom.sr.coding import Code  # brings the dictionary too

    return Term(_code(CATEGORIES[category]), Code(given["value"], given["scheme"], given["meaning"]))


def _table() -> dict[str, tuple[str, str]]:
    """Names to category and keyword of the standard's dictionary."""
    table: dict[str, tuple[str, str]] = {}
    groups = {"organ": _ORGANS, "tissue": _TISSUES, "altered": _ALTERED, "substance": _SUBSTANCES}
    for category, text in groups.items():
        for entry in text.split(";"):
            names, keyword = entry.split(":")
            table |= {" ".join(name.split()): (category, keyword.strip()) for name in names.split(",")}
    return table


_TABLE = _table()
