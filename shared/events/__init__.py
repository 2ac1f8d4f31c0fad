"""Event types as they are written today, one module per aggregate. Older shapes live in `shared/codec.py` only."""
