"""Scans: reading and writing images and label maps with their geometry."""

from segmentation.scans.dicom import read_series
from segmentation.scans.files import (
    label_map_ending,
    read_label_map,
    read_scan,
    scan_geometry,
    write_label_map,
    write_map,
)
from segmentation.scans.find import file_ending, find_scans
from segmentation.scans.geometry import from_canonical, grid_difference, to_canonical
from segmentation.scans.rtstruct import read_rtstruct, roi_names
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.series import Series, list_series

__all__ = [
    "Grid",
    "Scan",
    "Series",
    "file_ending",
    "find_scans",
    "from_canonical",
    "grid_difference",
    "label_map_ending",
    "list_series",
    "read_label_map",
    "read_rtstruct",
    "read_scan",
    "read_series",
    "roi_names",
    "scan_geometry",
    "to_canonical",
    "write_label_map",
    "write_map",
]
