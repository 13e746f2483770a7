"""What OpenAI's clients send and read, and how it goes together with calls."""
