"""A folder for a paper: LaTeX tables, figures at column width, published beside measured, and a main.tex."""
