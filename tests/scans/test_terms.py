import numpy as np
import pytest
from highdicom.color import CIELabColor
from PIL import Image, ImageCms
from pydicom.sr.codedict import codes

from segmentation import SkipSegError
from segmentation.scans import terms
from segmentation.scans.terms import CATEGORIES, PALETTE, cielab, colour, term

# Codes as the tables of DICOM PS3.16 print them, typed by hand.
ORGAN, TISSUE, ALTERED, SUBSTANCE = "91723000", "85756007", "49755003", "91720002"


@pytest.mark.parametrize(
    ("name", "category", "kind"),
    [
        ("liver", ORGAN, "10200004"),
        ("Kidneys", ORGAN, "64033007"),
        ("spleen", ORGAN, "78961009"),
        ("PANCREAS", ORGAN, "15776009"),
        ("lung", ORGAN, "39607008"),
        ("heart", ORGAN, "80891009"),
        ("brain", ORGAN, "12738006"),
        ("hippocampus", ORGAN, "5366008"),
        ("vessel", ORGAN, "59820001"),
        ("prostate", ORGAN, "41216001"),
        ("bone", ORGAN, "272673000"),
        ("vertebrae", ORGAN, "51282000"),
        ("nucleus", ORGAN, "84640000"),
        ("caudate nucleus", ORGAN, "11000004"),
        ("left ventricle", ORGAN, "87878005"),
        ("descending aorta", ORGAN, "15825003"),
        ("grey matter", TISSUE, "389081007"),
        ("csf", SUBSTANCE, "65216001"),
        ("tumour", ALTERED, "108369006"),
        ("brain_tumor", ALTERED, "108369006"),
        ("lesion", ALTERED, "52988006"),
        ("nodule of lung", ALTERED, "27925004"),
        ("peritumoral oedema", ALTERED, "79654002"),
        ("metastases in liver", ALTERED, "14799000"),
    ],
)
def test_common_names_have_the_codes_of_the_standard(name: str, category: str, kind: str):
    found = term(name)
    assert (found.category.value, found.kind.value) == (category, kind)
    assert {found.category.scheme_designator, found.kind.scheme_designator} == {"SCT"}


@pytest.mark.parametrize(
    ("name", "generic"),
    [
        ("membrane", TISSUE),  # the standard has no code for it
        ("red nucleus", TISSUE),  # is no cell nucleus
        ("muscle mass", TISSUE),  # is no tumour
        ("dendritic spine", TISSUE),
        ("liver and spleen", TISSUE),
        ("not liver", TISSUE),
        ("Leber", TISSUE),
        ("of liver", TISSUE),
        ("class 7", TISSUE),
        ("", TISSUE),
        ("tumour core", ALTERED),
        ("non-enhancing tumour", ALTERED),
    ],
)
def test_a_name_that_is_not_certain_gets_a_generic_code(name: str, generic: str):
    assert (term(name).category.value, term(name).kind.value) == (generic, generic)


@pytest.mark.parametrize(
    ("name", "kind", "side"),
    [
        ("left kidney", "64033007", "7771000"),
        ("kidney_right", "64033007", "24028007"),
        ("anterior hippocampus", "5366008", "255549009"),
        ("posterior", TISSUE, "255551008"),
        ("left and right lung", TISSUE, None),
        ("left ventricle", "87878005", None),
    ],
)
def test_sides_are_modifiers(name: str, kind: str, side: str | None):
    found = term(name)
    assert (found.kind.value, found.side and found.side.value) == (kind, side)


def test_every_name_of_the_table_is_in_the_dictionary_of_the_standard():
    assert len(terms._TABLE) > 100
    for name, (category, keyword) in terms._TABLE.items():
        assert term(name).kind == getattr(codes.SCT, keyword)
        assert term(name).category == getattr(codes.SCT, CATEGORIES[category])


def test_a_dataset_gives_its_own_codes():
    given = {"value": "T-1", "scheme": "99LOCAL", "meaning": "Cristae", "category": "tissue"}
    found = term("liver", {"liver": given})
    assert found.kind[:3] == ("T-1", "99LOCAL", "Cristae")
    assert found.category.value == TISSUE
    del given["category"]
    assert term("liver", {"liver": given}).category.value == ORGAN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": ""}, 'needs a "value" of 1 to 16'),
        ({"value": "1" * 17}, 'needs a "value" of 1 to 16'),
        ({"meaning": "x" * 65}, 'needs a "meaning" of 1 to 64'),
        ({"category": "organs"}, "is one of organ, tissue, altered, substance, got 'organs'"),
    ],
)
def test_a_given_code_is_checked(change: dict[str, str], words: str):
    given = {"value": "1", "scheme": "SCT", "meaning": "x"} | change
    with pytest.raises(SkipSegError, match=words):
        term("liver", {"liver": given})


# Colours


def test_colours_differ_stay_and_leave_out_the_background():
    colours = [colour("class", value) for value in range(1, 22)]
    assert len(set(colours)) == 21
    assert colours[:7] == list(PALETTE)
    assert colour("class", 22) == colours[0]
    with pytest.raises(SkipSegError, match="'background' has the value 0"):
        colour("background", 0)


def linear(rgb) -> np.ndarray:
    encoded = np.array(rgb) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


TO_CONES = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
DICHROMATS = {
    "none": np.eye(3),
    "protanopia": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "deuteranopia": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}  # Vienot, Brettel and Mollon, Color Research and Application 24 (1999) 243


@pytest.mark.parametrize("kind", DICHROMATS)
def test_the_palette_is_told_apart_without_red_or_green_cones(kind: str):
    seen = (np.linalg.inv(TO_CONES) @ DICHROMATS[kind] @ TO_CONES @ linear(PALETTE).T).T.clip(0, 1)
    encoded = 255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = np.array([cielab(tuple(rgb)) for rgb in encoded]) / 0xFFFF * (100, 255, 255)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(PALETTE), 1)]
    assert apart.min() > 12  # 2.3 is just noticeable


def test_cielab_equals_little_cms():
    levels = [(r, g, b) for r in (0, 60, 200, 255) for g in (0, 90, 255) for b in (0, 30, 180, 255)]
    picture = Image.new("RGB", (len(levels), 1))
    picture.putdata(levels)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")  # LittleCMS, D50
    there = ImageCms.applyTransform(picture, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    stored = np.array(there)[0].astype(float)
    theirs = np.stack([stored[:, 0] / 2.55, *((stored[:, index] + 128) % 256 - 128 for index in (1, 2))], axis=1)
    ours = np.array([cielab(rgb) for rgb in levels]) / 0xFFFF * (100, 255, 255) - (0, 128, 128)
    assert np.abs(ours - theirs).max() < 0.9  # they round to 8 bits


def test_cielab_equals_the_formula_from_chromaticities():
    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    primaries = np.stack([xyz(0.64, 0.33), xyz(0.30, 0.60), xyz(0.15, 0.06)], axis=1)
    d65, d50 = xyz(0.3127, 0.3290), np.array([0.96422, 1, 0.82521])
    to_xyz = primaries * np.linalg.solve(primaries, d65)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ d65)) @ bradford
    for rgb in [(213, 94, 20), (12, 3, 250), (4, 5, 3)]:
        x, y, z = adapt @ to_xyz @ linear(rgb) / d50
        f = [t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z)]
        lab = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
        ours = np.array(cielab(rgb)) / 0xFFFF * (100, 255, 255) - (0, 128, 128)
        np.testing.assert_allclose(ours, lab, atol=0.02)


@pytest.mark.parametrize("value", range(1, 22))
def test_readers_that_take_the_white_to_be_d65_show_a_colour_near_by(value: int):
    shown = CIELabColor.from_dicom_value(cielab(colour("class", value))).to_rgb()  # raises outside of sRGB
    assert np.abs(np.subtract(shown, colour("class", value))).max() <= 32
