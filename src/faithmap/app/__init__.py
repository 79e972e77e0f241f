"""The web page: a photograph explained, doubted and compared without a line of code; a thin layer over the library."""
