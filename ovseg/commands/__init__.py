"""The commands: `ovseg NAME`, and the scripts under tools, demo and datasets, which are the same.

`ovseg.commands.flags.NAME` reads the command line and imports nothing heavy, so that --help answers
at once; `ovseg.commands.NAME` does the work.
"""
