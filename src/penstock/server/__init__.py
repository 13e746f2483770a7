"""One host: HTTP pumped into a dispatcher."""
