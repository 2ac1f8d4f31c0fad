"""The log as evidence: walking its hash chain, saying what is wrong, sealing its head, handing it out.

`rows`, `chain`, `diagnosis` and `seals` are pure; `log` talks to PostgreSQL, `sealing` and `keys` to the file system.
"""
