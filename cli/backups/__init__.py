"""`orders backup` and `orders restore`: what cannot be derived from anything else, as files, and back."""
