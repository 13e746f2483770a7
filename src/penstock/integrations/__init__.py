"""Meeting other systems: the import names their code uses."""
