"""Benchmarks: `python -m bench` runs all, `python -m bench.place_order` one. The product imports none of them."""
