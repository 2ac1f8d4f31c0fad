"""State of each aggregate as a fold of its events: what the write side decides on and what a look back shows."""
