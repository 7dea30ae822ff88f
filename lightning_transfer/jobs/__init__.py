"""The jobs of the command line, one file each; ``record.py`` lists them."""
