"""Many hosts: a dispatcher over runners that have dialled in."""
