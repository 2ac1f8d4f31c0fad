"""Gateways to services of others: what they are asked for, and what they answer."""
