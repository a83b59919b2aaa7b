"""Reading what comes from outside: every byte of a file or a server goes through this room.

Here is the only place that decodes pictures, arrays, tables, archives, YAML, JSON and weights, so
here is where sizes are bounded before data are read, where only regular files are opened, and where
what went wrong gets a text that names the file. `docs/security.md` says what is promised.
"""
