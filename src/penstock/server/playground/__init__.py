"""The page at `/`, in which the commands of a server can be tried; its source: ``clients/typescript``."""
