"""Figures, tables and the one self-contained HTML page."""
