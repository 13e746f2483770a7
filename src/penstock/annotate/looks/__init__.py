"""Annotations to be looked at: a contact sheet, films with the shapes drawn in, one page for a browser."""
