"""The log as evidence: verifies its hash chain, diagnoses the first fault, seals its head, exports events.

`rows`, `chain`, `diagnosis` and `seals` are pure; `database` reads PostgreSQL, `seal_file` and `keys` the file system.
Nothing here depends on what an event means.
"""
