"""Typed stubs of what a server offers: JSON Schemas, read into types and written as Python or TypeScript."""
