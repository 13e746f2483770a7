"""What is said over a WebSocket, as an AsyncAPI document."""
