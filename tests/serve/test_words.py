"""Messages about an upload repeat nothing that stands in it."""

import pytest

from segmentation.scans.series import Series, choose_series
from segmentation.serve.words import cleaned


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scan.nii.gz holds NaN; repair it", "the upload holds NaN; repair it"),
        ("000012.dcm and 000013.dcm lie at one position", "the upload and the upload lie at one position"),
        ("scan.nrrd: space 'Doe Jane' is not anatomical", "the upload: space ... is not anatomical"),
        ("no series 1.2.840.113619.2.55.3: found none", "no series ...: found none"),
        ("/data/user/cache/serve/uploads/ab/scan.nii does not exist", "the upload does not exist"),
        ("a\n <script>alert(1)</script> b\x07", "a alert(1) b"),
        ("voxels of (1, 1, 2.5) mm", "voxels of (1, 1, 2.5) mm"),
        ("scan.png cannot be read as a picture (bad (Doe)); mend", "the upload cannot be read as a picture; mend"),
    ],
)  # fmt: skip
def test_only_our_own_words_are_left(text: str, said: str):
    assert cleaned(text) == said


def test_repairs_of_the_command_line_are_not_offered():
    missing, copies = "scan: 1 slice is missing; complete the series", "000001.dcm is a copy; leave one out"
    assert cleaned(f"{missing}, or repair it with 'gaps'") == missing.replace("scan", "the upload")
    assert cleaned(f"{copies}, or drop equal copies with repair 'duplicates'") == "the upload is a copy; leave one out"


def test_descriptions_of_series_are_left_out():
    listing = [Series(f"1.2.{n}", "CT", "Doe Jane thorax", (), 9, 9) for n in range(2)]
    with pytest.raises(Exception, match="Doe Jane") as caught:
        choose_series(listing)
    assert "Doe" not in cleaned(str(caught.value))


def test_a_message_has_an_end():
    assert len(cleaned("word " * 1000)) == 300
