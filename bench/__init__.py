"""Benchmarks: `python -m bench` runs them all, `python -m bench.place_order` one. The product imports none of this."""
