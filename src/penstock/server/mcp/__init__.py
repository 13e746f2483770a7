"""The commands as tools of the Model Context Protocol, by its official SDK (extra ``mcp``)."""
