"""Captioned pictures: COCO's JSON, tables, tars and folders as rows of one kind."""
