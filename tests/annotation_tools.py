"""Small annotations in exactly the formats of VOC, ImageNet and COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

VOC_XML = """<annotation>
	<folder>VOC2007</folder>
	<filename>000001.jpg</filename>
	<source>
		<database>The VOC2007 Database</database>
		<annotation>PASCAL VOC2007</annotation>
		<image>flickr</image>
		<flickrid>341012865</flickrid>
	</source>
	<owner>
		<flickrid>Fried Camels</flickrid>
		<name>Jinky the Fruit Bat</name>
	</owner>
	<size>
		<width>35</width>
		<height>50</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>dog</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>4</xmin>
			<ymin>24</ymin>
			<xmax>19</xmax>
			<ymax>37</ymax>
		</bndbox>
	</object>
	<object>
		<name>person</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>1</xmin>
			<ymin>1</ymin>
			<xmax>35</xmax>
			<ymax>50</ymax>
		</bndbox>
		<part>
			<name>head</name>
			<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
		</part>
	</object>
	<object>
		<name>dog</name>
		<difficult>1</difficult>
		<bndbox>
			<xmax>30</xmax>
			<xmin>30</xmin>
			<ymax>8</ymax>
			<ymin>7</ymin>
		</bndbox>
	</object>
</annotation>
"""


IMAGENET_XML = """<annotation>
	<folder>val</folder>
	<filename>ILSVRC2012_val_00000001</filename>
	<source>
		<database>ILSVRC_2012</database>
	</source>
	<size>
		<width>50</width>
		<height>37</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>n01751748</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>11</xmin>
			<ymin>0</ymin>
			<xmax>49</xmax>
			<ymax>37</ymax>
		</bndbox>
	</object>
</annotation>
"""


def save_image(path: Path, width: int, height: int, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "red").save(path, "JPEG", **settings)


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def instances(**changes: Any) -> dict[str, Any]:
    """As ``instances_val2014.json`` has it: a polygon of two parts, a crowd, an RLE of text; 12 x 10 pixels."""
    content: dict[str, Any] = {
        "info": {"description": "COCO 2014 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2014},
        "images": [
            {"license": 3, "file_name": "COCO_val2014_000000391895.jpg", "height": 10, "width": 12, "id": 391895},
            {"license": 1, "file_name": "COCO_val2014_000000000042.jpg", "height": 10, "width": 12, "id": 42},
        ],
        "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "Attribution"}],
        "annotations": [
            {
                "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4], [8.0, 6.0, 11.5, 6.0, 11.5, 9.0, 8.0, 9.0]],
                "area": 22.5, "iscrowd": 0, "image_id": 391895, "bbox": [1, 1, 10.5, 8], "category_id": 18, "id": 900100,
            },
            {
                "segmentation": {"counts": [3, 4, 6, 4, 103], "size": [10, 12]},
                "area": 8, "iscrowd": 1, "image_id": 391895, "bbox": [0, 3, 2, 4], "category_id": 1, "id": 900101,
            },
            {
                "segmentation": {"counts": "Q1", "size": [10, 12]},
                "area": 0, "iscrowd": 0, "image_id": 42, "bbox": [0, 0, 0, 0.5], "category_id": 90, "id": 900102,
            },
        ],
        "categories": [
            {"supercategory": "person", "id": 1, "name": "person"},
            {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
            {"supercategory": "animal", "id": 18, "name": "dog"},
        ],
    }  # fmt: skip
    return content | changes
