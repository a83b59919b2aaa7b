"""From captions to noun-region pairs: nouns, matching, records, executors, exports, report.

Import the module that is needed, for instance `from ovseg.mining.sources import open_source`;
importing this package alone loads neither a tagger nor a model.
"""
