"""A host that dials out: offers an app's commands to gateways."""
