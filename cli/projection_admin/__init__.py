"""`orders projections`: status, rebuild, verification, rollback and retry of the read models."""
