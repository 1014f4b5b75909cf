"""The update map is what the training wrote down."""

from dataclasses import replace

import pytest

from segmentation import SkipSegError
from segmentation.probes import updates
from segmentation.probes.context import NotMeasurableError
from segmentation.probes.updates import read_updates
from segmentation.runs import read_csv, write_text

TABLE = """epoch,layer,mean_update,update_ratio,rms_gradient
0,first,1e-19,0.5,1
0,last,2,,3
1,first,4,0.25,5
1,last,6,0.125,7
"""


def test_map_has_a_row_for_each_layer(tmp_path):
    write_text(tmp_path / "updates.csv", TABLE)
    found = read_updates(tmp_path)
    assert (found.layers, found.epochs) == (["first", "last"], [0, 1])
    assert found.measures["mean_update"] == [[1e-19, 4.0], [2.0, 6.0]]
    assert found.measures["update_ratio"] == [[0.5, 0.25], [None, 0.125]]


@pytest.mark.parametrize("table", [TABLE.replace("1,last,6,0.125,7\n", ""), TABLE.replace("1e-19", "x"), "a,b\n1,2\n"])
def test_damaged_table_is_refused(tmp_path, table):
    write_text(tmp_path / "updates.csv", table)
    with pytest.raises(SkipSegError, match="is damaged"):
        read_updates(tmp_path)


def test_run_without_record_says_how_to_get_one(context, tmp_path):
    with pytest.raises(NotMeasurableError, match="--track_updates"):
        updates.probe(replace(context, folder=tmp_path))


def test_probe_draws_what_the_training_recorded(context, picture_run):
    result = updates.probe(context)
    rows = read_csv(picture_run / "updates.csv")
    expected = [float(row["mean_update"]) for row in rows if row["layer"] == "bottleneck.units.0.0"]
    place = result.figures[0].rows.index("bottleneck.units.0.0")
    assert result.figures[0].values[place] == expected
    assert (result.figures[0].kind, result.figures[0].ticks) == ("heatmap", ["0", "1"])
    assert result.values["optimizer"] == "adamw"
