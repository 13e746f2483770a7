"""OpenAI's API, as far as text and vectors go, in front of a dispatcher."""
