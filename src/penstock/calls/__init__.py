"""Live calls: who may run, who reads, how long a log is kept."""
