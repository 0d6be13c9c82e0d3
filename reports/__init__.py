"""Reads run records and renders tables, figures and one offline page."""
