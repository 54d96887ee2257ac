"""Labels in other formats: COCO, YOLO, Pascal VOC, LabelMe and lists of centroids."""

from serank.datasets.labels.box_file import read_boxes
from serank.datasets.labels.importing import ImportReport, import_labels

__all__ = ["ImportReport", "import_labels", "read_boxes"]
