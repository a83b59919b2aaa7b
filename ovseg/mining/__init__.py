"""From captions to noun-region pairs: nouns, matching, records, executors, exports, report.

Import the module that is needed, such as `from ovseg.mining.nouns import NounExtractor`;
importing this package alone loads neither a tagger nor a model.
"""
