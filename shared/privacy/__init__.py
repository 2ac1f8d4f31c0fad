"""Personal data: sealed values, the keys of their subjects, and the keys that these are wrapped with."""
