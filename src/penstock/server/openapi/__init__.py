"""`GET /openapi.json`: what is served, for machines."""
