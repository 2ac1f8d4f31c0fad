"""The key-encryption key of services in tests."""

SECRET = "the tests' key-encryption key"
