"""An evaluation as a folder: a page, pictures, figures and tables."""
