"""What operators see of the calls: metrics."""
