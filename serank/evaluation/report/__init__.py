"""An evaluation as a folder: page, pictures, figures and tables."""
