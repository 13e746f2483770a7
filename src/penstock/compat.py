"""``import penstock.compat`` makes the import names of the reference systems available, where no package
of that name is installed."""

from penstock.integrations.names import install

install(first=False)
